"""Conversations and answers in each wire format, and a server that translates."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sluice.proxy.errors import RequestError
from sluice.proxy.headers import Header
from sluice.proxy.relay import relay
from sluice.proxy.translation import Translation
from sluice.proxy.wire import WireName
from sluice.proxy.wire.render_errors import openai_error
from tests.proxy.servers import serving

Json = dict[str, Any]
SOURCES = {
    "/v1/chat/completions": WireName.CHAT,
    "/v1/messages": WireName.MESSAGES,
    "/v1/responses": WireName.RESPONSES,
}


@dataclass
class Said:
    """What a model says in one turn."""

    text: str = ""
    calls: list[tuple[str, str, Json]] = field(default_factory=list)
    """Ids, names and arguments."""
    thinking: str = ""


class FakeAnswer:
    """An upstream's answer, in given pieces."""

    def __init__(self, pieces: Sequence[bytes], status: int = 200, content_type: bytes = b"application/json") -> None:
        self.status = status
        self.headers: Sequence[Header] = [(b"Content-Type", content_type), (b"Content-Length", b"1")]
        self.is_closed = False
        self._pieces = list(pieces)

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        self.is_closed = True


def sse(*events: Json, done: bool = False) -> bytes:
    names = [f"event: {one['type']}\n" if "type" in one else "" for one in events]
    lines = [f"{name}data: {json.dumps(one)}\n\n" for name, one in zip(names, events, strict=True)]
    return ("".join(lines) + "data: [DONE]\n\n" * done).encode()


def chat_events(said: Said, size: int = 3) -> bytes:
    """As a chat server streams it, texts and arguments cut into pieces."""
    head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(delta: Json, reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"reasoning_content": piece}) for piece in cut(said.thinking, size)]
    events += [chunk({"content": piece}) for piece in cut(said.text, size)]
    for index, (call_id, name, arguments) in enumerate(said.calls):
        function = {"name": name, "arguments": ""}
        events.append(
            chunk({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})
        )
        for piece in cut(json.dumps(arguments), size):
            events.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    events.append(chunk({}, "tool_calls" if said.calls else "stop"))
    return sse(*events, {**head, "choices": [], "usage": CHAT_USAGE}, done=True)


def chat_body(said: Said) -> bytes:
    message: Json = {"role": "assistant", "content": said.text or None}
    if said.thinking:
        message["reasoning_content"] = said.thinking
    if said.calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for call_id, name, arguments in said.calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if said.calls else "stop"}
    body = {"id": "chatcmpl-7", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**body, "choices": [choice], "usage": CHAT_USAGE}).encode()


def messages_events(said: Said, size: int = 3) -> bytes:
    """As Anthropic streams it."""
    message = {"id": "msg_7", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    usage = {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10, "output_tokens": 1}
    events: list[Json] = [{"type": "message_start", "message": {**message, "usage": usage}}, {"type": "ping"}]
    index = 0

    def block(start: Json, deltas: list[Json]) -> None:
        nonlocal index
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events.extend({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
        index += 1

    if said.thinking:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(said.thinking, size)]
        signature = {"type": "signature_delta", "signature": "c2ln"}
        block({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature])
    if said.text:
        deltas = [{"type": "text_delta", "text": piece} for piece in cut(said.text, size)]
        block({"type": "text", "text": ""}, deltas)
    for call_id, name, arguments in said.calls:
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(json.dumps(arguments), size)]
        block({"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas)
    stop = {"stop_reason": "tool_use" if said.calls else "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 20}})
    return sse(*events, {"type": "message_stop"})


def messages_body(said: Said) -> bytes:
    content: list[Json] = []
    if said.thinking:
        content.append({"type": "thinking", "thinking": said.thinking, "signature": "c2ln"})
    if said.text:
        content.append({"type": "text", "text": said.text})
    content += [{"type": "tool_use", "id": one, "name": name, "input": value} for one, name, value in said.calls]
    body = {"id": "msg_7", "type": "message", "role": "assistant", "model": "m", "content": content}
    usage = {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10, "output_tokens": 20}
    return json.dumps({**body, "stop_reason": "tool_use" if said.calls else "end_turn", "usage": usage}).encode()


CHAT_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 10},
}
EVENTS = {WireName.CHAT: chat_events, WireName.MESSAGES: messages_events}
BODIES = {WireName.CHAT: chat_body, WireName.MESSAGES: messages_body}


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def answering(said: Said, target: WireName, *, split: int = 7) -> Callable[[bool], FakeAnswer]:
    """An upstream that says something in its wire format, its bytes cut anywhere."""

    def answer(stream: bool) -> FakeAnswer:
        data = EVENTS[target](said) if stream else BODIES[target](said)
        pieces = [data[start : start + split] for start in range(0, len(data), split)]
        return FakeAnswer(pieces, content_type=b"text/event-stream" if stream else b"application/json")

    return answer


class Translating:
    """A server that speaks all wire formats, before an upstream that speaks one."""

    def __init__(self, target: WireName, answer: Callable[[bool], FakeAnswer]) -> None:
        self.target = target
        self.answer = answer
        self.forwarded: list[Json] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = scope["type"] == "http"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["type"] != "http":
            return
        source, translation = SOURCES[scope["path"]], Translation()
        try:
            self.forwarded.append(json.loads(translation.request(source, self.target, body)))
        except RequestError as error:
            status, content = openai_error(error)
            head = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": head})
            await send({"type": "http.response.body", "body": content})
            return
        stream = json.loads(body).get("stream") is True
        answer = translation.answer(source, self.target, self.answer(stream), stream=stream, request=body)
        await relay(answer, send)


@asynccontextmanager
async def translating(target: WireName, answer: Callable[[bool], FakeAnswer]) -> AsyncIterator[tuple[str, Translating]]:
    app = Translating(target, answer)
    async with serving(app) as url:
        yield url, app


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


async def events_of(
    source: WireName, target: WireName, *pieces: bytes, request: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The events that a client gets for a stream in these pieces."""
    answer = FakeAnswer(pieces, content_type=b"text/event-stream")
    body = json.dumps(request or {"model": "m"}).encode()
    translated = Translation().answer(source, target, answer, stream=True, request=body)
    stream = b""
    while data := await translated.read():
        stream += data
    return [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: {")]
