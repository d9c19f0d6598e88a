"""Writes answers in the chat format, as events and whole. Knows no other format."""

from __future__ import annotations

import secrets
import time

from sluice.proxy.translation.deltas import CallArguments, CallBegin, Fault, Stop, Thinking, Tokens
from sluice.proxy.translation.faults import openai_error
from sluice.proxy.translation.json_codec import Json
from sluice.proxy.translation.sse import event
from sluice.proxy.translation.writer import AnswerWriter

_STOPS = {
    Stop.END: "stop",
    Stop.SEQUENCE: "stop",
    Stop.LENGTH: "length",
    Stop.CALLS: "tool_calls",
    Stop.REFUSAL: "content_filter",
}


class ChatWriter(AnswerWriter):
    """Writes one answer.

    Args:
        includes_usage: whether a stream ends with what it took, as the client's `stream_options` say.
    """

    def __init__(self, *, includes_usage: bool) -> None:
        super().__init__()
        self._includes_usage = includes_usage
        self._head: Json = {}
        self._pieces: dict[str, list[str]] = {"content": [], "reasoning_content": [], "refusal": []}
        self._calls: dict[int, tuple[int, Json, list[str]]] = {}

    def _begin(self, model: str) -> bytes:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        return self._chunk({"role": "assistant", "content": ""})

    def _text(self, piece: str) -> bytes:
        return self._piece("content", piece)

    def _refusal(self, piece: str) -> bytes:
        return self._piece("refusal", piece)

    def _thinking(self, delta: Thinking) -> bytes:
        return self._piece("reasoning_content", delta.text)

    def _fail(self, fault: Fault) -> bytes:
        return event(openai_error(fault))

    def _last(self) -> bytes:
        last = self._chunk({}, _STOPS[self._end.stop])
        if self._includes_usage:
            last += event({**self._head, "choices": [], "usage": _usage(self._tokens)})
        return last + b"data: [DONE]\n\n"

    def _body(self) -> Json:
        message: Json = {"role": "assistant", "content": None, "refusal": None}
        message |= {name: "".join(pieces) for name, pieces in self._pieces.items() if pieces}
        if self._calls:
            message["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": "".join(pieces)}}
                for _, call, pieces in self._calls.values()
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _STOPS[self._end.stop]}
        head = {**self._head, "object": "chat.completion"}
        return {**head, "choices": [choice], "usage": _usage(self._tokens)}

    def _error(self, fault: Fault) -> Json:
        return openai_error(fault)

    def _piece(self, field: str, piece: str) -> bytes:
        self._pieces[field].append(piece)
        return self._chunk({field: piece})

    def _call_begin(self, delta: CallBegin) -> bytes:
        function = {"name": delta.name, "arguments": ""}
        call: Json = {"id": delta.call_id, "type": "function", "function": function}
        self._calls[delta.index] = (len(self._calls), call, [])
        return self._chunk({"tool_calls": [{"index": self._calls[delta.index][0], **call}]})

    def _arguments(self, delta: CallArguments) -> bytes:
        place, _, pieces = self._calls[delta.index]
        pieces.append(delta.text)
        return self._chunk({"tool_calls": [{"index": place, "function": {"arguments": delta.text}}]})

    def _chunk(self, delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._includes_usage else {}
        return event({**self._head, "choices": [choice], **usage})


def _usage(tokens: Tokens) -> Json:
    return {
        "prompt_tokens": tokens.num_prompt,
        "completion_tokens": tokens.num_output,
        "total_tokens": tokens.num_prompt + tokens.num_output,
        "prompt_tokens_details": {"cached_tokens": tokens.num_cached, "cache_write_tokens": tokens.num_written},
        "completion_tokens_details": {"reasoning_tokens": tokens.num_thinking},
    }
