from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.completion import TextOutput, Usage
from sluice.backend.tools import ToolCallFinder, call_schema, find_tool_calls, tell_tools, with_object_arguments

CALL = {"name": "add", "arguments": {"a": 1}}
ONE = json.dumps(CALL)
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
DEEP = "[" * 3000


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
        (DEEP, DEEP, 0),
        (f"<tool_call>{DEEP}", f"<tool_call>{DEEP}", 0),
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


async def test_that_a_call_has_begun_is_told_before_it_is_whole() -> None:
    async def outputs() -> AsyncGenerator[TextOutput]:
        for start in range(0, len(ONE), 4):
            is_last = start + 4 >= len(ONE)
            yield TextOutput(0, ONE[start : start + 4], Usage(1, 0, 1), "stop" if is_last else None)

    first, last = [output async for output in find_tool_calls(outputs(), ["add"])]
    assert (first.text, first.finish_reason, first.tool_calls) == ("", None, ())
    assert (last.text, last.finish_reason, len(last.tool_calls)) == ("", "tool_calls", 1)


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


@pytest.mark.parametrize("is_text", [False, True])
def test_halves_of_surrogate_pairs_in_a_call_can_be_sent(is_text: bool) -> None:
    arguments = '{"a": "x\\ud83d"}'
    written = '{"name": "add", "arguments": %s}' % (json.dumps(json.loads(arguments)["a"]) if is_text else arguments)
    finder = ToolCallFinder(["add"])
    finder.push(written)
    text, (call,) = finder.finish()
    assert text == ""
    assert call.arguments == ("x\ufffd" if is_text else '{"a": "x\ufffd"}')


@pytest.mark.parametrize("prepare", [with_object_arguments, lambda messages: tell_tools(messages, None)])
def test_arguments_that_cannot_be_read_stay_text(prepare: Callable[..., list[dict[str, Any]]]) -> None:
    for arguments in ("{no", DEEP):
        call = {"id": "1", "function": {"name": "add", "arguments": arguments}}
        assert arguments in str(prepare([{"role": "assistant", "content": "", "tool_calls": [call]}]))


def test_a_schema_names_the_tools() -> None:
    schema = call_schema([*TOOLS, {"function": {"name": "other"}}], None)
    assert [form["properties"]["name"]["const"] for form in schema["anyOf"]] == ["add", "other"]
    assert len(call_schema(TOOLS, "add")["anyOf"]) == 1
