"""A server that plays a model: it answers each request with the next call of the script, on every wire format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.agents.script import FINAL, SCRIPT, Step
from tests.proxy.servers import Exchange

Json = dict[str, Any]
LISTS = {"/v1/chat/completions": "messages", "/v1/messages": "messages", "/v1/responses": "input"}
_CALL_ID = re.compile(r"step_(\d+)_call")


@dataclass
class ScriptedModel:
    """What to answer, and what came in."""

    call: Callable[[Step], tuple[str, Json]]
    """How an agent's tools do a step: the tool's name and arguments."""
    last_call: tuple[str, Json] | None = None
    """A call in place of the final text, for agents that end with one."""
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    """Path and body of every request of the conversation; side requests (titles, say) are left out."""
    num_others: int = 0

    async def answer(self, exchange: Exchange) -> None:
        path = exchange.path
        if path == "/v1/messages/count_tokens":
            await exchange.whole(b'{"input_tokens": 1000}')
            return
        if exchange.method != "POST" or path not in LISTS:
            self.num_others += 1
            await exchange.whole(b'{"error": {"message": "not here", "type": "invalid_request_error"}}', 404)
            return
        request = exchange.json
        if not request.get("tools"):
            self.num_others += 1
            await self._say(exchange, request, "A title", None)
            return
        self.requests.append((path, exchange.body))
        done = [int(number) for number in _CALL_ID.findall(json.dumps(request[LISTS[path]]))]
        number = max(done, default=-1) + 1
        if number < len(SCRIPT):
            await self._say(exchange, request, f"Step {number}.", (number, *self.call(SCRIPT[number])))
        elif self.last_call is not None:
            await self._say(exchange, request, FINAL, (number, *self.last_call))
        else:
            await self._say(exchange, request, FINAL, None)

    async def _say(self, exchange: Exchange, request: Json, text: str, call: tuple[int, str, Json] | None) -> None:
        number, name, arguments = call if call is not None else (-1, "", {})
        speak = {"/v1/chat/completions": _chat, "/v1/messages": _messages, "/v1/responses": _responses}[exchange.path]
        # Agents take answers of one id for one answer.
        model = request["model"]
        body, events = speak(
            f"{len(self.requests)}", model, text, f"step_{number}_call" if call else "", name, json.dumps(arguments)
        )
        if not request.get("stream"):
            await exchange.whole(json.dumps(body).encode())
            return
        await exchange.start("text/event-stream")
        for event in events:
            named = f"event: {event['type']}\n" if "type" in event else ""
            await exchange.part(f"{named}data: {json.dumps(event)}\n\n".encode())
        if exchange.path == "/v1/chat/completions":
            await exchange.part(b"data: [DONE]\n\n")
        await exchange.end()


def _chat(key: str, model: str, text: str, call_id: str, name: str, arguments: str) -> tuple[Json, list[Json]]:
    head = {"id": f"chatcmpl-{key}", "created": 1, "model": model}
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    reason = "tool_calls" if call_id else "stop"
    message: Json = {"role": "assistant", "content": text}
    deltas: list[Json] = [message]
    if call_id:
        deltas.append({"tool_calls": [{"index": 0, **call}]})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    chunk = {**head, "object": "chat.completion.chunk"}
    events = [{**chunk, "choices": [choice]} for choice in choices] + [{**chunk, "choices": [], "usage": usage}]
    whole = {**message, "tool_calls": [call]} if call_id else message
    choice = {"index": 0, "message": whole, "finish_reason": reason}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}, events


def _messages(key: str, model: str, text: str, call_id: str, name: str, arguments: str) -> tuple[Json, list[Json]]:
    head = {"id": f"msg_{key}", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}
    usage = {"input_tokens": 1000, "output_tokens": 10}
    content: list[Json] = [{"type": "text", "text": text}]
    deltas: list[Json] = [{"type": "text_delta", "text": text}]
    if call_id:
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)})
        deltas.append({"type": "input_json_delta", "partial_json": arguments})
    stop = {"stop_reason": "tool_use" if call_id else "end_turn"}
    events: list[Json] = [
        {"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": usage}}
    ]
    for index, (block, delta) in enumerate(zip(content, deltas, strict=True)):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {**stop, "stop_sequence": None}, "usage": usage})
    events.append({"type": "message_stop"})
    return {**head, "content": content, **stop, "usage": usage}, events


def _responses(key: str, model: str, text: str, call_id: str, name: str, arguments: str) -> tuple[Json, list[Json]]:
    part = {"type": "output_text", "text": text, "annotations": []}
    items: list[Json] = [{"type": "message", "id": f"msg_{key}", "role": "assistant", "content": [part]}]
    if call_id:
        items.append(
            {"type": "function_call", "id": f"fc_{key}", "call_id": call_id, "name": name, "arguments": arguments}
        )
    usage = {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 1010,
    }
    head = {"id": f"resp_{key}", "object": "response", "created_at": 1, "model": model}
    whole = {**head, "status": "completed", "output": items, "usage": usage}
    events: list[Json] = [{"type": "response.created", "response": {**head, "status": "in_progress", "output": []}}]
    for index, item in enumerate(items):
        begun = {**item, "content": []} if item["type"] == "message" else {**item, "arguments": ""}
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        if item["type"] == "message":
            at = {"item_id": f"msg_{key}", "output_index": index, "content_index": 0}
            events.append({"type": "response.output_text.delta", **at, "delta": text})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return whole, [{**event, "sequence_number": number} for number, event in enumerate(events)]


def messages_of(path: str, body: bytes) -> list[Any]:
    """A request's messages, less what clients move about from turn to turn."""
    return [without_marks(message) for message in json.loads(body)[LISTS[path]]]


def without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items() if key != "cache_control"}
    return [without_marks(item) for item in value] if isinstance(value, list) else value


def slips(requests: Sequence[tuple[str, bytes]]) -> list[int]:
    """Turns whose messages do not begin with all those of the turn before, byte for byte."""
    found = []
    before: list[str] = []
    for number, (path, body) in enumerate(requests):
        now = [json.dumps(message) for message in messages_of(path, body)]
        if now[: len(before)] != before:
            found.append(number)
        before = now
    return found
