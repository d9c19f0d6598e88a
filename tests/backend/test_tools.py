from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.tools import ToolCallFinder, call_schema, tell_tools, with_object_arguments

CALL = {"name": "add", "arguments": {"a": 1}}
ONE = json.dumps(CALL)
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def find(text: str, size: int) -> tuple[str, list[str]]:
    finder, out = ToolCallFinder(["add"]), ""
    for start in range(0, len(text), size):
        out += finder.push(text[start : start + size])
    rest, calls = finder.finish()
    return out + rest, [f"{call.name} {call.arguments}" for call in calls]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "says", "num_calls"),
    [
        (f"<tool_call>{ONE}</tool_call>", "", 1),
        (f"<tool_call>\n[{ONE}, {ONE}]\n</tool_call>", "", 2),
        (f"Let me see.<tool_call>{ONE}</tool_call>\n<tool_call>{ONE}</tool_call>", "Let me see.", 2),
        (f"<tool_call>{ONE}", "", 1),
        (f" \n{ONE}", "", 1),
        (f"[{ONE}]", "", 1),
        (json.dumps({"name": "add", "parameters": {"a": 1}}), "", 1),
        ("just text", "just text", 0),
        ("a < b <tool", "a < b <tool", 0),
        ('{"name": "unknown", "arguments": {}}', '{"name": "unknown", "arguments": {}}', 0),
        ("{not json", "{not json", 0),
        (" ", " ", 0),
        (f"<tool_call>{ONE}</tool_call><tool_call>broken</tool_call>", None, 0),
    ],
)
def test_calls_are_found_and_all_else_is_text(text: str, says: str | None, num_calls: int, size: int) -> None:
    assert find(text, size) == (text if says is None else says, ['add {"a": 1}'] * num_calls)


@given(st.text("<tol_ca>{[ x"), st.integers(1, 5))
def test_text_without_calls_comes_through_whole(text: str, size: int) -> None:
    assert find(text, size) == (text, [])


def test_text_is_released_while_it_comes() -> None:
    finder = ToolCallFinder(["add"])
    assert finder.push("Hello <to") == "Hello "
    assert finder.push("ast>") == "<toast>"


def test_tools_are_told_to_templates_that_do_not_know_them() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "1", "function": {"name": "add", "arguments": "{}"}}],
        },
    ]
    told = tell_tools(messages, TOOLS)
    assert told[0]["content"].startswith("Be brief.\n\n")
    assert '"name": "add"' in told[0]["content"]
    assert told[1] == {
        "role": "assistant",
        "content": '<tool_call>[{"name": "add", "arguments": {}}]</tool_call>',
    }
    assert messages[0]["content"] == "Be brief."
    assert tell_tools(messages[1:], TOOLS)[0]["role"] == "system"
    assert tell_tools(messages[:1], None) == messages[:1]


def test_templates_that_know_tools_get_arguments_as_objects() -> None:
    call = {"id": "1", "function": {"name": "add", "arguments": '{"a": 1}'}}
    (message,) = with_object_arguments([{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert call["function"]["arguments"] == '{"a": 1}'


def test_a_schema_names_the_tools() -> None:
    schema = call_schema([*TOOLS, {"function": {"name": "other"}}], None)
    assert [form["properties"]["name"]["const"] for form in schema["anyOf"]] == ["add", "other"]
    assert len(call_schema(TOOLS, "add")["anyOf"]) == 1
