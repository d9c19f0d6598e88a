from __future__ import annotations

import json
from typing import Any

import pytest

from sluice.compressor import OPENAI_RESPONSES, MalformedMessageError
from sluice.compressor.provenance import Kind
from sluice.compressor.provenance.calls import read_call
from tests.compressor.conversations import encode


def text_of(item: dict[str, Any]) -> list[str]:
    return [text.text for text in OPENAI_RESPONSES.parse(encode(item)).texts]


@pytest.mark.parametrize(
    ("item", "kind", "path"),
    [
        (
            {"type": "function_call", "name": "exec_command", "arguments": '{"cmd": "cat a.py"}'},
            Kind.READ,
            "a.py",
        ),
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["bash", "-lc", "cat a.py"]}},
            Kind.READ,
            "a.py",
        ),
        ({"type": "shell_call", "action": {"commands": ["cat a.py"]}}, Kind.READ, "a.py"),
        (
            {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "a.py", "diff": "@@\n+x"}},
            Kind.EDIT,
            "a.py",
        ),
        (
            {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin Patch\n*** Update File: a.py\n"},
            Kind.EDIT,
            "a.py",
        ),
    ],
)
def test_each_kind_of_call_says_what_it_shows(item: dict[str, Any], kind: Kind, path: str) -> None:
    message = OPENAI_RESPONSES.parse(encode({"call_id": "c", **item}))
    (call,) = message.calls
    provenance = read_call(call)
    assert (message.role, call.id, provenance.kind, provenance.path) == ("assistant", "c", kind, path)


@pytest.mark.parametrize(
    "type_", ["function_call_output", "custom_tool_call_output", "local_shell_call_output", "apply_patch_call_output"]
)
def test_outputs_are_results_of_their_call(type_: str) -> None:
    for output in ("text", [{"type": "input_text", "text": "text"}, {"type": "input_image", "image_url": "u"}]):
        message = OPENAI_RESPONSES.parse(encode({"type": type_, "call_id": "c", "output": output}))
        (text,) = message.texts
        assert (message.role, text.text, text.call_id, text.is_result) == ("tool", "text", "c", True)


def test_both_streams_of_a_shell_are_results() -> None:
    entry = {"stdout": "out", "stderr": "err", "outcome": {"type": "exit", "exit_code": 0}}
    raw = encode({"type": "shell_call_output", "call_id": "c", "output": [entry, entry]})
    assert [text.text for text in OPENAI_RESPONSES.parse(raw).texts] == ["out", "err", "out", "err"]
    rendered = json.loads(OPENAI_RESPONSES.render(raw, {1: "e", 2: "o"}))
    assert rendered["output"] == [{**entry, "stderr": "e"}, {**entry, "stdout": "o"}]


def test_messages_have_roles_and_need_no_type() -> None:
    assert OPENAI_RESPONSES.parse(b'{"role":"developer","content":"be brief"}').role == "system"
    assert text_of({"role": "user", "content": [{"type": "input_text", "text": "hi"}]}) == ["hi"]
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
    assert text_of(said) == ["yes"]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "item_reference", "id": "i"},
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "mcp_call", "name": "n", "arguments": "{}", "output": "text"},
    ],
)
def test_what_is_the_servers_is_opaque(item: dict[str, Any]) -> None:
    message = OPENAI_RESPONSES.parse(encode(item))
    assert (message.role, message.texts, message.calls) == ("assistant", (), ())


@pytest.mark.parametrize(
    "raw", [b"", b"7", b'{"role":"robot","content":"x"}', b'{"type":"function_call_output","output":7}']
)
def test_what_is_not_of_this_form_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        OPENAI_RESPONSES.parse(raw)


def test_a_rendition_replaces_the_texts_and_nothing_else() -> None:
    image = {"type": "input_image", "image_url": "u"}
    item = {
        "type": "function_call_output",
        "id": "fc",
        "call_id": "c",
        "output": [image, {"type": "input_text", "text": "t"}],
    }
    assert json.loads(OPENAI_RESPONSES.render(encode(item), {0: "s"})) == {
        **item,
        "output": [image, {"type": "input_text", "text": "s"}],
    }
