"""The search tool on Anthropic's Messages wire: calls and thinking are blocks, results are blocks of user messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sluice.proxy.body import Body
from sluice.proxy.search_tool.definition import NAME
from sluice.proxy.search_tool.form import Kept, Stream
from sluice.proxy.search_tool.rounds import Call, Round, gone_on, usage_of
from sluice.proxy.translation.deltas import Fault
from sluice.proxy.translation.faults import anthropic_error
from sluice.proxy.translation.json_codec import Json, decode, decode_object, encode, mapping, number, objects, text
from sluice.proxy.translation.sse import DONE, Event, is_done, rendered
from sluice.proxy.translation.sse import event as written

_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
"""Kinds of deltas, each the field of its block that it adds to."""


class MessagesForm:
    """See `Form`."""

    list_field = "messages"

    def tool(self, name: str, description: str, parameters: Json) -> Json:
        """See `Form`."""
        return {"name": name, "description": description, "input_schema": parameters}

    def fits(self, body: Body) -> bool:
        """See `Form`."""
        return True

    def stream(self) -> Stream:
        """See `Form`."""
        return MessagesStream()

    def read(self, body: Json) -> Round | None:
        """See `Form`."""
        if body.get("type") != "message":
            return None
        return _round([(block, "") for block in objects(body.get("content"))], text(body.get("stop_reason")))

    def spliced(self, bodies: Sequence[Json]) -> Json:
        """See `Form`."""
        first, last = bodies[0], bodies[-1]
        shown = [block for body in bodies for block in objects(body.get("content")) if not _is_ours(block)]
        return {
            **last,
            "id": first.get("id"),
            "content": shown,
            "stop_reason": _stop_reason(last.get("stop_reason"), has_calls=any(map(_is_call, shown))),
            "usage": usage_of(bodies),
        }

    def told(self, rounds: Sequence[Round]) -> list[Json]:
        """See `Form`."""
        return [{"role": "assistant", "content": [part for one in rounds for part in one.parts if not _is_ours(part)]}]

    def answered(self, parts: Sequence[Json], results: Sequence[tuple[Call, str]]) -> list[Json]:
        """See `Form`."""
        said = [part for part in parts if part.get("type") != "text" or text(part.get("text")).strip()]
        return [{"role": "assistant", "content": said}, {"role": "user", "content": self.results(results)}]

    def shown(self, hidden: Sequence[Round]) -> list[bytes]:
        """See `Form`."""
        return [_essence(part) for one in hidden for part in one.parts if not _is_ours(part)]

    def our_calls(self, last: Round) -> list[Json]:
        """See `Form`."""
        return [part for part in last.parts if _is_ours(part)]

    def results(self, results: Sequence[tuple[Call, str]]) -> list[Json]:
        """See `Form`."""
        return [{"type": "tool_result", "tool_use_id": call.id, "content": found} for call, found in results]

    def restored(self, run: Sequence[bytes], after: bytes | None, kept: Kept) -> list[bytes]:
        """See `Form`."""
        shown = list(kept.shown)
        said: list[bytes] = []
        for raw in run:
            rest = raw if said else _without(raw, shown)
            if rest is not None:
                said.append(rest)  # from here on it is the last round's
        if kept.calls:
            calls = [decode(call) for call in kept.calls]
            said[-1:] = [_extended(said[-1], behind=calls)] if said else [encode(_message("assistant", calls))]
            results = [decode(result) for result in kept.results]
            if after is not None and decode_object(after).get("role") == "user":
                after = _extended(after, before=results)
            else:
                said.append(encode(_message("user", results)))
        return [*kept.hidden, *said, *([after] if after is not None else [])]


class MessagesStream:
    """See `Stream`."""

    def __init__(self) -> None:
        self._num_rounds = 0
        """Before this one."""
        self._num_shown = 0
        """Blocks that the client was sent."""
        self._usage: Json = {}
        """Of the rounds before this one, as the client would be told it."""
        self._begin()

    def _begin(self) -> None:
        self._blocks: dict[int, Json] = {}
        """This round's blocks, by the upstream's index."""
        self._inputs: dict[int, list[str]] = {}
        """Pieces of the input of each call."""
        self._indexes: dict[int, int] = {}
        """The client's index of each block that it may see."""
        self._round_usage: Json = {}
        self._end: Json | None = None
        """The event that says why the round ended."""
        self._is_whole = False
        self._is_done = False

    def feed(self, event: Event) -> bytes:
        """See `Stream`."""
        if is_done(event):
            self._is_done = True
            return b""
        data = decode_object(event.data)
        kind, index = data.get("type"), number(data.get("index"))
        if kind == "message_start":
            self._round_usage = mapping(mapping(data.get("message")).get("usage"))
            return b"" if self._num_rounds else rendered(event)
        if kind == "message_delta":
            self._end = data
            self._round_usage = _laid_over(self._round_usage, mapping(data.get("usage")))
            return b""
        if kind == "message_stop":
            self._is_whole = True
            return b""
        if kind == "content_block_start":
            block = self._blocks[index] = dict(mapping(data.get("content_block")))
            if not _is_ours(block):
                self._indexes[index] = self._num_shown
                self._num_shown += 1
        elif kind == "content_block_delta":
            self._add(index, mapping(data.get("delta")))
        elif kind != "content_block_stop":
            return rendered(event)
        if index not in self._indexes:
            return b""
        if self._indexes[index] == index:
            return rendered(event)
        return written({**data, "index": self._indexes[index]}, name=event.name)

    def round(self) -> Round | None:
        """See `Stream`."""
        if not self._is_whole or self._end is None:
            return None
        blocks = [(block, "".join(self._inputs.get(index, ()))) for index, block in sorted(self._blocks.items())]
        return _round(blocks, text(mapping(self._end.get("delta")).get("stop_reason")))

    def next_round(self) -> None:
        """See `Stream`."""
        self._usage = gone_on(self._usage, self._round_usage)
        self._num_rounds += 1
        self._begin()

    def finish(self) -> bytes:
        """See `Stream`."""
        end = self._end
        if end is None:
            return b""
        if self._num_rounds:
            end = {**end, "usage": gone_on(self._usage, self._round_usage)}
        delta = mapping(end.get("delta"))
        shown = [self._blocks[index] for index in self._indexes]
        stop = _stop_reason(delta.get("stop_reason"), has_calls=any(map(_is_call, shown)))
        end = {**end, "delta": {**delta, "stop_reason": stop}}
        stopped = written({"type": "message_stop"}, name="message_stop") if self._is_whole else b""
        return written(end, name="message_delta") + stopped + (rendered(Event("", DONE)) if self._is_done else b"")

    def fail(self, fault: Fault) -> bytes:
        """See `Stream`."""
        return written(anthropic_error(fault), name="error")

    def _add(self, index: int, delta: Json) -> None:
        block, kind = self._blocks.get(index, {}), text(delta.get("type"))
        if (field := _PIECES.get(kind)) is not None:
            block[field] = text(block.get(field)) + text(delta.get(field))
        elif kind == "input_json_delta":
            self._inputs.setdefault(index, []).append(text(delta.get("partial_json")))
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta.get("citation")]


def _round(blocks: Sequence[tuple[Json, str]], stop_reason: str) -> Round:
    """Put a round together.

    Args:
        blocks: each with the input that came for it in pieces; empty where it came with its block.
        stop_reason: why the round ended.
    """
    parts: list[Json] = []
    calls: list[Call] = []
    for block, given in blocks:
        part = {**block, "input": _object_or_none(given) or {}} if given else block
        parts.append(part)
        if _is_ours(part):
            calls.append(Call(text(part.get("id")), given or encode(part.get("input")).decode()))
    num_others = sum(map(_is_call, parts)) - len(calls)
    has_text = any(text(part.get("text")).strip() for part in parts if part.get("type") == "text")
    return Round(tuple(parts), tuple(calls), num_others, stop_reason == "tool_use", has_text)


def _object_or_none(data: str) -> Json | None:
    try:
        return decode_object(data)
    except ValueError:
        return None


def _is_call(block: Json) -> bool:
    return block.get("type") == "tool_use"


def _is_ours(block: Json) -> bool:
    return _is_call(block) and block.get("name") == NAME


def _stop_reason(reason: object, *, has_calls: bool) -> object:
    """Why the answer ended, where the client sees none of the calls for which it did."""
    return "end_turn" if reason == "tool_use" and not has_calls else reason


def _laid_over(usage: Json, later: Json) -> Json:
    """Reports of one round are cumulative: the later stands."""
    return {**usage, **{key: value for key, value in later.items() if value is not None}}


def _message(role: str, content: Sequence[Json]) -> Json:
    return {"role": role, "content": list(content)}


def _essence(block: Json) -> bytes:
    """What tells a block from others, whatever else a client makes of it."""
    kind = text(block.get("type"))
    field = {"text": "text", "thinking": "thinking", "redacted_thinking": "data"}.get(kind, "id")
    return encode([kind, text(block.get(field)).strip()])


def _blocks(content: object) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])  # type: ignore[call-overload]


def _without(raw: bytes, shown: list[bytes]) -> bytes | None:
    """A message less the blocks at its beginning that were shown of hidden rounds; None where nothing is left.

    Args:
        raw: the message.
        shown: taken off as they are found. Clients leave blocks out, so that some may be missing.
    """
    message = decode_object(raw)
    blocks = _blocks(message.get("content"))
    num_known = 0
    for block in blocks:
        essence = _essence(mapping(block))
        if essence not in shown:
            break
        del shown[: shown.index(essence) + 1]
        num_known += 1
    if blocks and not num_known:
        return raw
    return encode({**message, "content": blocks[num_known:]}) if blocks[num_known:] else None


def _extended(raw: bytes, *, before: Sequence[Json] = (), behind: Sequence[Json] = ()) -> bytes:
    """A message with blocks before and behind its own."""
    message = decode_object(raw)
    return encode({**message, "content": [*before, *_blocks(message.get("content")), *behind]})
