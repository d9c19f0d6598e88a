"""Writes answers in Anthropic's Messages format, as events and whole. Knows no other format.

The order of events is Anthropic's: message_start, then per block its start, deltas and stop, then message_delta with
why the model stopped and what it took, then message_stop.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from sluice.proxy.translation.chat_to_messages import call_id, call_input
from sluice.proxy.translation.deltas import CallArguments, CallBegin, Fault, Stop, Thinking, Tokens
from sluice.proxy.translation.faults import anthropic_error
from sluice.proxy.translation.json_codec import Json
from sluice.proxy.translation.sse import event
from sluice.proxy.translation.thinking import signature_of
from sluice.proxy.translation.writer import AnswerWriter

_STOPS = {
    Stop.END: "end_turn",
    Stop.SEQUENCE: "stop_sequence",
    Stop.LENGTH: "max_tokens",
    Stop.CALLS: "tool_use",
    Stop.REFUSAL: "refusal",
}


class MessagesWriter(AnswerWriter):
    """Writes one answer.

    Args:
        shows_thinking: whether the client asked for what the model thinks.
        names: the client's tools by their names in the chat format; others keep theirs.
    """

    def __init__(self, *, shows_thinking: bool, names: Mapping[str, str]) -> None:
        super().__init__()
        self._names = names
        self._shows_thinking = shows_thinking
        self._message: Json = {}
        self._block: Json | None = None
        self._pieces: list[str] = []
        self._call: int | None = None

    def _fail(self, fault: Fault) -> bytes:
        return _event(anthropic_error(fault))

    def _stop(self) -> bytes:
        return self._close()

    def _last(self) -> bytes:
        closed = self._close()
        self._message["stop_reason"] = _STOPS[self._end.stop]
        self._message["stop_sequence"] = self._end.sequence
        self._message["usage"] = _usage(self._tokens)
        stop = {"stop_reason": self._message["stop_reason"], "stop_sequence": self._end.sequence}
        last = _event({"type": "message_delta", "delta": stop, "usage": self._message["usage"]})
        return closed + last + _event({"type": "message_stop"})

    def _body(self) -> Json:
        return self._message

    def _error(self, fault: Fault) -> Json:
        return anthropic_error(fault)

    def _begin(self, model: str) -> bytes:
        self._message = {
            # Claude Code takes answers of one id for one: upstreams that give the same twice would mix up its history.
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(self._tokens),
        }
        return _event({"type": "message_start", "message": self._message})

    def _text(self, piece: str) -> bytes:
        opened = self._open("text", {"type": "text", "text": ""})
        return opened + self._delta({"type": "text_delta", "text": piece}, piece)

    def _refusal(self, piece: str) -> bytes:
        return self._text(piece)

    def _thinking(self, delta: Thinking) -> bytes:
        if not self._shows_thinking:
            return b""
        block = {"type": "thinking", "thinking": "", "signature": ""}
        opened = self._open("thinking", block)
        assert self._block is not None
        self._block["signature"] = signature_of(delta.field)
        return opened + self._delta({"type": "thinking_delta", "thinking": delta.text}, delta.text)

    def _call_begin(self, delta: CallBegin) -> bytes:
        closed = self._close()
        name = self._names.get(delta.name, delta.name)
        opened = self._open("tool_use", {"type": "tool_use", "id": call_id(delta.call_id), "name": name, "input": {}})
        self._call = delta.index
        return closed + opened

    def _arguments(self, delta: CallArguments) -> bytes:
        if delta.index != self._call:
            return b""  # its call is whole already
        return self._delta({"type": "input_json_delta", "partial_json": delta.text}, delta.text)

    def _open(self, kind: str, block: Json) -> bytes:
        if self._block is not None and self._block["type"] == kind:
            return b""
        closed = self._close()
        started = _event({"type": "content_block_start", "index": self._index, "content_block": block})
        self._block = dict(block)
        return closed + started

    def _delta(self, delta: Json, piece: str) -> bytes:
        self._pieces.append(piece)
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        block, self._block, self._call = self._block, None, None
        if block is None:
            return b""
        written, self._pieces = "".join(self._pieces), []
        signed = b""
        if block["type"] == "tool_use":
            block["input"] = call_input(written)
        else:
            block[str(block["type"])] = written
        if block["type"] == "thinking":
            signature = {"type": "signature_delta", "signature": block["signature"]}
            signed = _event({"type": "content_block_delta", "index": self._index, "delta": signature})
        stopped = _event({"type": "content_block_stop", "index": self._index})
        self._message["content"].append(block)
        return signed + stopped

    @property
    def _index(self) -> int:
        return len(self._message["content"])


def _usage(tokens: Tokens) -> Json:
    return {
        "input_tokens": max(tokens.num_prompt - tokens.num_cached - tokens.num_written, 0),
        "cache_creation_input_tokens": tokens.num_written,
        "cache_read_input_tokens": tokens.num_cached,
        "output_tokens": tokens.num_output,
    }


def _event(data: Json) -> bytes:
    return event(data, name=data["type"])
