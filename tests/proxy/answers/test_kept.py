from __future__ import annotations

import pytest

from sluice.proxy.answers.kept import keep
from sluice.proxy.headers import Header
from sluice.proxy.meter import UsageReader
from sluice.proxy.wire.types import WireName

JSON = [(b"Content-Type", b"application/json"), (b"Set-Cookie", b"a=b"), (b"Date", b"now")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


@pytest.mark.parametrize(
    ("wire", "headers", "body", "is_whole"),
    [
        (WireName.CHAT, JSON, b'{"choices": []}', True),
        (WireName.CHAT, JSON, b'{"choices": [], "error": null}', True),
        (WireName.CHAT, JSON, b'{"error": {"message": "overloaded"}}', False),
        (WireName.CHAT, JSON, b'{"choices": [', False),
        (WireName.CHAT, EVENTS, b'data: {"choices": []}\n\ndata: [DONE]\n\n', True),
        (WireName.CHAT, EVENTS, b'data: {"choices": []}\r\n\r\ndata: [DONE]\r\n\r\n', True),
        (WireName.CHAT, EVENTS, b'data: {"choices": []}\n\n', False),
        (WireName.CHAT, EVENTS, b'data: {"error": {}}\n\ndata: [DONE]\n\n', False),
        (WireName.MESSAGES, EVENTS, b'event: message_stop\ndata: {"type": "message_stop"}\n\n', True),
        (WireName.MESSAGES, EVENTS, b'event: error\ndata: {"type": "error"}\n\n', False),
        (WireName.RESPONSES, EVENTS, b'data: {"type": "response.completed", "response": {}}\n\n', True),
        (WireName.RESPONSES, EVENTS, b'data: {"type": "response.failed"}\n\n', False),
        (WireName.RESPONSES, EVENTS, b"", False),
        (WireName.CHAT, JSON, b'{"error": "\xff"}', False),
        (WireName.MESSAGES, EVENTS, b'data: {"type": "message_stop\xff"}\n\n', False),
    ],
)
def test_only_whole_answers_are_kept(wire: WireName, headers: list[Header], body: bytes, is_whole: bool) -> None:
    chunks = [body[:5], body[5:]]
    kept = keep(wire, headers, chunks, 1.0)
    assert (kept is not None) == is_whole
    if kept is not None:
        assert kept.chunks == chunks
        assert [name for name, _ in kept.headers] == [b"content-type"]


CHAT_USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n'
START = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n'
STOP = b'data: {"type":"message_delta","usage":{}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
DONE = b'data: {"type":"response.completed","response":{"output":[{"usage":{"a":1}}],"usage":{"x":1}}}\n\n'


@pytest.mark.parametrize(
    ("wire", "headers", "body", "usages"),
    [
        (WireName.CHAT, JSON, b'{"choices": [{"text": "\\"usage\\": {"}], "usage" : { "prompt_tokens": 3 } }', 1),
        (WireName.MESSAGES, JSON, b'{"content": [{"input": {"usage": {"n": 1}}}], "usage": {"input_tokens": 1}}', 1),
        (WireName.CHAT, JSON, b'{"choices": [], "usage": null}', 0),
        (WireName.CHAT, EVENTS, CHAT_USAGE + b"data: [DONE]\n\n", 1),
        (WireName.CHAT, EVENTS, b'data: {"choices": [], "usage": null}\r\n\r\ndata: [DONE]\r\n\r\n', 0),
        (WireName.MESSAGES, EVENTS, START + STOP, 2),
        (WireName.RESPONSES, EVENTS, DONE, 1),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_that_was_kept_says_so_in_its_usage(
    wire: WireName, headers: list[Header], body: bytes, usages: int, size: int
) -> None:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    kept = keep(wire, headers, chunks, 1.0)
    assert kept is not None
    assert len(kept.chunks) == len(chunks)
    shown = b"".join(kept.chunks)
    assert shown.count(b'"sluice_answer":"hit"') == usages
    assert shown.replace(b'"sluice_answer":"hit",', b"").replace(b'"sluice_answer":"hit"', b"") == body
    before, after = UsageReader(wire, headers is EVENTS), UsageReader(wire, headers is EVENTS)
    before.feed(body)
    after.feed(shown)
    assert before.usage() == after.usage()


def test_a_compressed_answer_is_kept_as_it_came() -> None:
    kept = keep(WireName.CHAT, [*JSON, (b"content-encoding", b"gzip")], [b"\x1f\x8b"], 1.0)
    assert kept is not None
    assert kept.chunks == [b"\x1f\x8b"]
