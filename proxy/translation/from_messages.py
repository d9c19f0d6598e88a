"""Reads answers of Anthropic's Messages format: whole ones, and events of streamed ones. Knows no other format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sluice.proxy.translation.deltas import (
    Begin,
    CallArguments,
    CallBegin,
    Delta,
    End,
    Stop,
    Text,
    Thinking,
    Tokens,
)
from sluice.proxy.translation.errors import UnreadableAnswerError
from sluice.proxy.translation.faults import anthropic_fault
from sluice.proxy.translation.json_codec import Json, decode_object, encode, mapping, number, objects, text
from sluice.proxy.translation.sse import Event

_STOPS = {
    "end_turn": Stop.END,
    "pause_turn": Stop.END,
    "stop_sequence": Stop.SEQUENCE,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "tool_use": Stop.CALLS,
    "refusal": Stop.REFUSAL,
}


class MessagesReader:
    """Reads one answer."""

    def __init__(self) -> None:
        self._tokens = Tokens()
        self._inputs: dict[int, Json | None] = {}
        """What each open call's block began with; None as soon as a piece of its input has come."""
        self.is_complete = False
        """Whether the answer has come to its end."""
        self.is_done = False
        """Whether nothing more of it can come."""

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer that is not streamed. Raises UnreadableAnswerError."""
        try:
            message = decode_object(body)
        except ValueError as error:
            raise UnreadableAnswerError(f"the upstream's answer is no message: {error}") from None
        if message.get("type") != "error" and not isinstance(message.get("content"), list):
            raise UnreadableAnswerError("the upstream's answer is no message: it has no content")
        return list(self._whole(message))

    def feed(self, event: Event) -> list[Delta]:
        """Read one event. Raises UnreadableAnswerError."""
        try:
            data = decode_object(event.data)
        except ValueError as error:
            raise UnreadableAnswerError(f"an event of the upstream's is none of a message: {error}") from None
        return list(self._event(data))

    def _whole(self, message: Json) -> Iterator[Delta]:
        self.is_complete = True
        if message.get("type") == "error":
            yield anthropic_fault(message, status=500)
            return
        yield _begin(message)
        for index, block in enumerate(objects(message.get("content"))):
            yield from self._block(index, block)
            yield from self._close(index)
        yield self._add_usage(mapping(message.get("usage")))
        yield _end(message)

    def _event(self, data: Json) -> Iterator[Delta]:
        kind, index = data.get("type"), number(data.get("index"))
        if kind == "message_start":
            message = mapping(data.get("message"))
            yield _begin(message)
            yield self._add_usage(mapping(message.get("usage")))
        elif kind == "content_block_start":
            yield from self._block(index, mapping(data.get("content_block")))
        elif kind == "content_block_delta":
            yield from self._piece(index, mapping(data.get("delta")))
        elif kind == "content_block_stop":
            yield from self._close(index)
        elif kind == "message_delta":
            yield self._add_usage(mapping(data.get("usage")))
            if mapping(data.get("delta")).get("stop_reason"):
                yield _end(mapping(data.get("delta")))
        elif kind == "message_stop":
            self.is_complete = self.is_done = True
        elif kind == "error":
            self.is_complete = self.is_done = True
            yield anthropic_fault(data, status=500)

    def _block(self, index: int, block: Json) -> Iterator[Delta]:
        kind = block.get("type")
        if kind == "text" and text(block.get("text")):
            yield Text(text(block.get("text")))
        elif kind == "thinking" and text(block.get("thinking")):
            yield Thinking(text(block.get("thinking")))
        elif kind == "tool_use":
            yield CallBegin(index, text(block.get("id")), text(block.get("name")))
            self._inputs[index] = mapping(block.get("input"))

    def _piece(self, index: int, delta: Json) -> Iterator[Delta]:
        kind = delta.get("type")
        if kind == "text_delta" and text(delta.get("text")):
            yield Text(text(delta.get("text")))
        elif kind == "thinking_delta" and text(delta.get("thinking")):
            yield Thinking(text(delta.get("thinking")))
        elif kind == "input_json_delta" and text(delta.get("partial_json")) and index in self._inputs:
            self._inputs[index] = None  # what is not in there is a call of the server's own tools, none of the client's
            yield CallArguments(index, text(delta.get("partial_json")))

    def _close(self, index: int) -> Iterator[Delta]:
        begun_with = self._inputs.pop(index, None)
        if begun_with is not None:
            yield CallArguments(index, encode(begun_with).decode())

    def _add_usage(self, usage: Json) -> Tokens:
        cached, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
        if usage.get("input_tokens") is not None:
            num_cached = number(cached) if cached is not None else self._tokens.num_cached
            num_written = number(written) if written is not None else self._tokens.num_written
            num_prompt = number(usage.get("input_tokens")) + num_cached + num_written
            self._tokens = replace(self._tokens, num_prompt=num_prompt, num_cached=num_cached, num_written=num_written)
        if usage.get("output_tokens") is not None:
            details = mapping(usage.get("output_tokens_details"))
            self._tokens = replace(
                self._tokens,
                num_output=number(usage.get("output_tokens")),
                num_thinking=number(details.get("thinking_tokens")),
            )
        return self._tokens


def _begin(message: Json) -> Begin:
    return Begin(text(message.get("model")))


def _end(message: Json) -> End:
    sequence = message.get("stop_sequence")
    reason = _STOPS.get(text(message.get("stop_reason")), Stop.END)
    return End(reason, sequence if isinstance(sequence, str) else None)
