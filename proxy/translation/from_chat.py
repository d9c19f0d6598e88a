"""Reads answers of the chat format: whole ones, and events of streamed ones. Knows no other format."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from sluice.proxy.translation.deltas import (
    Begin,
    CallArguments,
    CallBegin,
    Delta,
    End,
    Refusal,
    Stop,
    Text,
    Thinking,
    Tokens,
)
from sluice.proxy.translation.errors import UnreadableAnswerError
from sluice.proxy.translation.faults import openai_fault
from sluice.proxy.translation.json_codec import Json, decode_object, encode, mapping, number, objects, text
from sluice.proxy.translation.sse import Event, is_done
from sluice.proxy.translation.thinking import FIELDS

_STOPS = {
    "stop": Stop.END,
    "length": Stop.LENGTH,
    "max_tokens": Stop.LENGTH,
    "tool_calls": Stop.CALLS,
    "function_call": Stop.CALLS,
    "content_filter": Stop.REFUSAL,
}


class ChatReader:
    """Reads one answer; of several choices the first."""

    def __init__(self) -> None:
        self._has_begun = False
        self._ids: dict[int, str] = {}
        """Ids of the calls by their place in the upstream's list."""
        self._places: dict[int, int] = {}
        """The calls' own indexes by that place: some servers put every call at place 0."""
        self._num_calls = 0
        self._unnamed: dict[int, str] = {}
        """By that place, the arguments so far of calls whose name has yet to come, as with some servers."""
        self.is_complete = False
        """Whether the answer has come to its end."""
        self.is_done = False
        """Whether nothing more of it can come."""

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer that is not streamed. Raises UnreadableAnswerError."""
        try:
            answer = decode_object(body)
        except ValueError as error:
            raise UnreadableAnswerError(f"the upstream's answer is no chat completion: {error}") from None
        if not answer.get("error") and not objects(answer.get("choices")):
            raise UnreadableAnswerError("the upstream's answer is no chat completion: it has no choices")
        return list(self._read(answer, "message"))

    def feed(self, event: Event) -> list[Delta]:
        """Read one event. Raises UnreadableAnswerError."""
        if is_done(event):
            self.is_complete = self.is_done = True
            return []
        try:
            chunk = decode_object(event.data)
        except ValueError as error:
            raise UnreadableAnswerError(f"an event of the upstream's is no chat chunk: {error}") from None
        return list(self._read(chunk, "delta"))

    def _read(self, chunk: Json, field: str) -> Iterator[Delta]:
        if chunk.get("error"):
            self.is_complete = self.is_done = True
            yield openai_fault(chunk, status=500)
            return
        if not self._has_begun:
            self._has_begun = True
            yield Begin(text(chunk.get("model")))
        for choice in objects(chunk.get("choices")):
            if choice.get("index") in (0, None):
                yield from self._choice(choice, field)
        if isinstance(chunk.get("usage"), dict):
            yield _tokens(chunk["usage"])

    def _choice(self, choice: Json, field: str) -> Iterator[Delta]:
        message = mapping(choice.get(field))
        thought = next(((name, text(message.get(name))) for name in FIELDS if text(message.get(name))), None)
        if thought is not None:
            yield Thinking(thought[1], thought[0])
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(text(part.get("text")) for part in objects(content))
        if text(content):
            yield Text(text(content))
        if text(message.get("refusal")):
            yield Refusal(text(message.get("refusal")))
        calls = objects(message.get("tool_calls"))
        if isinstance(message.get("function_call"), dict):
            calls = [{"index": 0, "function": message["function_call"]}]
        for number_, call in enumerate(calls):
            place = call.get("index")
            yield from self._call(call, place if isinstance(place, int) else number_)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.is_complete = True
            for place in list(self._unnamed):
                yield from self._begin(place, "")
            yield self._end(reason, choice)

    def _call(self, call: Json, place: int) -> Iterator[Delta]:
        function = mapping(call.get("function"))
        call_id, name = text(call.get("id")), text(function.get("name"))
        is_new = place not in self._places or bool(name and call_id and call_id != self._ids[place])
        if is_new:
            self._places[place] = self._num_calls
            self._num_calls += 1
            self._ids[place] = call_id or f"call_{secrets.token_hex(12)}"
            self._unnamed[place] = ""
        if name and place in self._unnamed:
            yield from self._begin(place, name)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # some servers send the object itself
            arguments = encode(arguments).decode()
        if place in self._unnamed:
            self._unnamed[place] += text(arguments)
        elif text(arguments):
            yield CallArguments(self._places[place], text(arguments))

    def _begin(self, place: int, name: str) -> Iterator[Delta]:
        """Begin a call with what has come of it."""
        arguments = self._unnamed.pop(place)
        yield CallBegin(self._places[place], self._ids[place], name)
        if arguments:
            yield CallArguments(self._places[place], arguments)

    def _end(self, reason: str, choice: Json) -> End:
        stop = _STOPS.get(reason, Stop.END)
        if self._num_calls and stop is Stop.END:
            stop = Stop.CALLS  # as some servers say
        elif not self._num_calls and stop is Stop.CALLS:
            stop = Stop.END
        # vLLM names the stop sequence that was met.
        met = choice.get("stop_reason")
        if stop is Stop.END and isinstance(met, str):
            return End(Stop.SEQUENCE, met)
        return End(stop)


def _tokens(usage: Json) -> Tokens:
    details = mapping(usage.get("prompt_tokens_details"))
    return Tokens(
        number(usage.get("prompt_tokens")),
        number(details.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))),
        number(details.get("cache_write_tokens")),
        number(usage.get("completion_tokens")),
        number(mapping(usage.get("completion_tokens_details")).get("reasoning_tokens")),
    )
