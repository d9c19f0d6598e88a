from __future__ import annotations

import json

import pytest

from sluice.compressor import ANTHROPIC_MESSAGES, MalformedMessageError
from tests.compressor.conversations import encode

EPHEMERAL = {"type": "ephemeral"}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "long"}


def identity(content: object, **more: object) -> bytes:
    return ANTHROPIC_MESSAGES.parse(encode({"role": "user", "content": content, **more})).identity


def test_reads_texts_calls_and_results() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "Read", "input": {"file_path": "a.py"}}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = ANTHROPIC_MESSAGES.parse(
        encode({"role": "assistant", "content": [thinking, {"type": "text", "text": "I"}, call]})
    )
    assert [text.text for text in said.texts] == ["I"]
    assert [(c.id, c.name, json.loads(c.arguments)) for c in said.calls] == [("t1", "Read", {"file_path": "a.py"})]
    parts = {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "b"}, {"type": "image"}]}
    got = ANTHROPIC_MESSAGES.parse(
        encode({"role": "user", "content": [RESULT, parts, {"type": "text", "text": "reminder"}]})
    )
    assert got.role == "tool"
    assert [(text.text, text.call_id, text.is_result) for text in got.texts] == [
        ("long", "t1", True),
        ("b", "t2", True),
        ("reminder", None, False),
    ]
    assert ANTHROPIC_MESSAGES.parse(b'{"role":"system","content":"in mid-list"}').role == "system"


def test_what_the_servers_own_tools_leave_is_neither_a_call_nor_a_result() -> None:
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result", "url": "u"}]},
        {"type": "redacted_thinking", "data": "d"},
    ]
    message = ANTHROPIC_MESSAGES.parse(encode({"role": "assistant", "content": blocks}))
    assert (message.texts, message.calls) == ((), ())


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"[]", b'{"role":"tool","content":"x"}', b'{"role":"user"}', b'{"role":"user","content":7}'),
        b'{"role":"user","content":[{"type":"tool_result","content":7}]}',
    ],
)
def test_what_is_not_of_this_form_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        ANTHROPIC_MESSAGES.parse(raw)


def test_identity_ignores_breakpoints_wherever_they_stand() -> None:
    text = {"type": "text", "text": "hello"}
    assert identity("hello") == identity([text]) == identity([{**text, "cache_control": EPHEMERAL}])
    assert identity([RESULT]) == identity([{**RESULT, "cache_control": EPHEMERAL}])
    inner = {**RESULT, "content": [text]}
    marked = {**RESULT, "content": [{**text, "cache_control": EPHEMERAL}]}
    assert identity([inner]) == identity([marked])
    assert identity([RESULT]) != identity([{**RESULT, "is_error": True}])
    assert identity("hello") != identity("hello!")


def test_a_rendition_replaces_result_texts_and_nothing_else() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "aGk="}}
    raw = encode(
        {
            "role": "user",
            "content": [
                {**RESULT, "is_error": True},
                {"type": "tool_result", "tool_use_id": "t2", "content": [image, {"type": "text", "text": "two"}]},
                {"type": "tool_result", "tool_use_id": "t3"},
                {"type": "text", "text": "three", "cache_control": EPHEMERAL},
            ],
        }
    )
    rendered = json.loads(ANTHROPIC_MESSAGES.render(raw, {0: "short", 1: "2"}))
    expected = json.loads(raw)
    expected["content"][0]["content"] = "short"
    expected["content"][1]["content"][1]["text"] = "2"
    del expected["content"][3]["cache_control"]
    assert rendered == expected


def test_only_the_breakpoints_that_are_set_now_are_carried() -> None:
    marked = encode({"role": "user", "content": [{**RESULT, "cache_control": {**EPHEMERAL, "ttl": "1h"}}]})
    rendition = ANTHROPIC_MESSAGES.render(marked, {0: "short"})
    assert b"cache_control" not in rendition
    carried = json.loads(ANTHROPIC_MESSAGES.carry(marked, rendition))
    assert carried["content"][0] == {**RESULT, "content": "short", "cache_control": {**EPHEMERAL, "ttl": "1h"}}
    plain = encode({"role": "user", "content": [RESULT]})
    assert ANTHROPIC_MESSAGES.carry(plain, rendition) == rendition
    spoken_of = encode({"role": "user", "content": [{**RESULT, "content": 'set "cache_control"'}]})
    assert ANTHROPIC_MESSAGES.carry(spoken_of, rendition) == rendition
