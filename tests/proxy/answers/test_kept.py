from __future__ import annotations

import pytest

from sluice.proxy.answers.kept import keep
from sluice.proxy.headers import Header
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
    ],
)
def test_only_whole_answers_are_kept(wire: WireName, headers: list[Header], body: bytes, is_whole: bool) -> None:
    chunks = [body[:5], body[5:]]
    kept = keep(wire, headers, chunks, 1.0)
    assert (kept is not None) == is_whole
    if kept is not None:
        assert kept.chunks == chunks
        assert [name for name, _ in kept.headers] == [b"content-type"]
