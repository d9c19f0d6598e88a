"""An upstream that speaks every wire and plays an agent: it calls `Read` for some turns, then says that it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.proxy.servers import DONE, Exchange

Json = dict[str, Any]
USAGE = {"input_tokens": 9, "output_tokens": 3}


class ReadingModel:
    """Answers in the wire of the request: `num_calls` calls of `Read` on the same file, and then a text."""

    def __init__(self, num_calls: int) -> None:
        self._num_calls = num_calls

    async def __call__(self, exchange: Exchange) -> None:
        answer = {
            "/v1/chat/completions": self._chat,
            "/v1/messages": self._messages,
            "/v1/responses": self._responses,
        }[exchange.path]
        body = exchange.json
        num_results = _count(body, lambda d: d.get("role") == "tool" or str(d.get("type")) in _RESULT_TYPES)
        whole, events = answer(num_results)
        if not body.get("stream"):
            await exchange.whole(json.dumps(whole).encode())
            return
        await exchange.start("text/event-stream")
        for event in events:
            name = f"event: {event['type']}\n" if "type" in event else ""
            await exchange.part(f"{name}data: {json.dumps(event)}\n\n".encode())
        if exchange.path == "/v1/chat/completions":
            await exchange.part(DONE)
        await exchange.end()

    def _chat(self, num_results: int) -> tuple[Json, list[Json]]:
        head = {"id": "c", "created": 1, "model": "m"}
        if num_results < self._num_calls:
            function = {"name": "Read", "arguments": '{"file_path": "a.py"}'}
            call = {"id": f"call_{num_results}", "type": "function", "function": function}
            message: Json = {"role": "assistant", "content": None, "tool_calls": [call]}
            delta: Json = {"role": "assistant", "tool_calls": [{"index": 0, **call}]}
        else:
            message = delta = {"role": "assistant", "content": "done"}
        whole = {
            **head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        part = {**head, "object": "chat.completion.chunk"}
        return whole, [
            {**part, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {**part, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]

    def _messages(self, num_results: int) -> tuple[Json, list[Json]]:
        if num_results < self._num_calls:
            block: Json = {
                "type": "tool_use",
                "id": f"toolu_{num_results}",
                "name": "Read",
                "input": {"file_path": "a.py"},
            }
            start: Json = {**block, "input": {}}
            delta: Json = {"type": "input_json_delta", "partial_json": '{"file_path": "a.py"}'}
            reason = "tool_use"
        else:
            block, start = {"type": "text", "text": "done"}, {"type": "text", "text": ""}
            delta, reason = {"type": "text_delta", "text": "done"}, "end_turn"
        head: Json = {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "stop_sequence": None,
            "usage": USAGE,
        }
        return {**head, "content": [block], "stop_reason": reason}, [
            {"type": "message_start", "message": {**head, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": start},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": USAGE},
            {"type": "message_stop"},
        ]

    def _responses(self, num_results: int) -> tuple[Json, list[Json]]:
        if num_results < self._num_calls:
            arguments = '{"file_path": "a.py"}'
            item: Json = {"type": "function_call", "id": f"fc_{num_results}", "call_id": f"call_{num_results}"}
            item |= {"name": "Read", "arguments": arguments, "status": "completed"}
        else:
            part = {"type": "output_text", "text": "done", "annotations": []}
            item = {"type": "message", "id": "msg", "role": "assistant", "status": "completed", "content": [part]}
        head: Json = {"id": "r", "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True}
        head |= {"tool_choice": "auto", "tools": []}
        usage = {**USAGE, "total_tokens": 12, "input_tokens_details": {"cached_tokens": 0}}
        whole = {**head, "status": "completed", "output": [item], "usage": usage}
        return whole, [
            {
                "type": "response.created",
                "sequence_number": 0,
                "response": {**head, "status": "in_progress", "output": []},
            },
            {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item},
            {"type": "response.output_item.done", "sequence_number": 2, "output_index": 0, "item": item},
            {"type": "response.completed", "sequence_number": 3, "response": whole},
        ]


_RESULT_TYPES = ("tool_result", "function_call_output")


def _count(value: Any, wanted: Callable[[Json], bool]) -> int:
    if isinstance(value, dict):
        return wanted(value) + sum(_count(inner, wanted) for inner in value.values())
    return sum(_count(inner, wanted) for inner in value) if isinstance(value, list) else 0
