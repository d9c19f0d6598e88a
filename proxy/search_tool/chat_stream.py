"""One chat stream out of several rounds: chunks go on as they come, calls of our tool are held back."""

from __future__ import annotations

from collections.abc import Iterator

from sluice.proxy.search_tool.chat_round import BETWEEN, finish_reason, round_of
from sluice.proxy.search_tool.definition import NAME
from sluice.proxy.search_tool.rounds import Round, gone_on
from sluice.proxy.translation.deltas import Fault
from sluice.proxy.translation.faults import openai_error
from sluice.proxy.translation.json_codec import Json, decode_object, mapping, objects, text
from sluice.proxy.translation.sse import DONE, Event, is_done, rendered
from sluice.proxy.translation.sse import event as written

_HEAD = ("id", "created", "system_fingerprint")
"""What names the answer in each chunk."""


class ChatStream:
    """See `Stream`."""

    def __init__(self) -> None:
        self._num_rounds = 0
        """Before this one."""
        self._head: Json | None = None
        self._has_text = False
        """Whether rounds before this one said something."""
        self._usage: Json = {}
        """Of the rounds before this one, as the client would be told it."""
        self._role = ""
        """The first that the upstream gave."""
        self._has_role = False
        """Whether the client was told it."""
        self._begin()

    def _begin(self) -> None:
        self._message: Json = {}
        self._calls: list[_Call] = []
        self._places: dict[int, int] = {}
        """The newest call at each place of the upstream's list: some servers put every call at place 0."""
        self._num_shown = 0
        """Calls that the client was sent."""
        self._round_usage: Json = {}
        self._tail: list[Json] = []
        """Chunks that end the round."""
        self._reason = ""
        self._is_done = False

    def feed(self, event: Event) -> bytes:
        """See `Stream`."""
        if is_done(event):
            self._is_done = True
            return b""
        chunk = decode_object(event.data)
        if isinstance(chunk.get("usage"), dict):
            self._round_usage = chunk["usage"]
        choices = objects(chunk.get("choices"))
        if not choices and not isinstance(chunk.get("usage"), dict):
            return rendered(event)  # an error, or what a provider says before the answer
        is_changed = self._name(chunk)
        if not choices:
            self._tail.append(chunk)
            return b""
        choice = choices[0]
        delta = mapping(choice.get("delta"))
        shown = self._with_role(self._shown(delta))
        reason = text(choice.get("finish_reason"))
        if reason:
            self._reason = reason
            if unnamed := [call for call in self._calls if call.is_ours is None]:
                shown["tool_calls"] = [*objects(shown.get("tool_calls")), *map(self._begun, unnamed)]
            if not any(call.is_ours for call in self._calls):
                self._tail.append({**chunk, "choices": [{**choice, "delta": shown}]})
                return b""
            # Nothing of this chunk may go if another round follows, but for what it says.
            self._tail.append({**chunk, "choices": [{**choice, "delta": {}}]})
        elif shown == delta:
            self._has_role = self._has_role or "role" in shown
            return written(chunk) if is_changed else rendered(event)
        if not any(value for name, value in shown.items() if name != "role"):
            return b""
        self._has_role = self._has_role or "role" in shown
        return written({**chunk, "choices": [{**choice, "delta": shown, "finish_reason": None}]})

    def round(self) -> Round | None:
        """See `Stream`."""
        if not self._reason:
            return None
        message = dict(self._message)
        if self._calls:
            message["tool_calls"] = [call.fields for call in self._calls]
        message.setdefault("content", None)
        return round_of(message, self._reason)

    def next_round(self) -> None:
        """See `Stream`."""
        self._usage = gone_on(self._usage, self._round_usage)
        self._has_text = self._has_text or bool(self._message.get("content"))
        self._num_rounds += 1
        self._begin()

    def finish(self) -> bytes:
        """See `Stream`."""
        out = b""
        for chunk in self._tail:
            if isinstance(chunk.get("usage"), dict) and self._num_rounds:
                chunk = {**chunk, "usage": gone_on(self._usage, self._round_usage)}
            if choices := objects(chunk.get("choices")):
                reason = finish_reason(choices[0].get("finish_reason"), has_calls=self._num_shown > 0)
                delta = self._with_role(mapping(choices[0].get("delta")))
                self._has_role = True
                chunk = {**chunk, "choices": [{**choices[0], "delta": delta, "finish_reason": reason}]}
            out += written(chunk)
        return out + (rendered(Event("", DONE)) if self._is_done else b"")

    def fail(self, fault: Fault) -> bytes:
        """See `Stream`."""
        return written(openai_error(fault))

    def _name(self, chunk: Json) -> bool:
        """Give a chunk the head of the first; whether that changed it."""
        if self._head is None:
            self._head = {field: chunk[field] for field in _HEAD if field in chunk}
        if not self._num_rounds:
            return False
        chunk.update(self._head)
        return True

    def _with_role(self, shown: Json) -> Json:
        """A delta with the role, where it was held back with calls that came beside it."""
        if self._has_role or not self._role or "role" in shown:
            return shown
        return {"role": self._role, **shown}

    def _shown(self, delta: Json) -> Json:
        """Add a delta to the round's message; what of it the client may see now."""
        self._role = self._role or text(delta.get("role"))
        for field, value in delta.items():
            if field == "tool_calls":
                continue
            before = self._message.get(field)
            if isinstance(value, str) and isinstance(before, str) and field != "role":
                self._message[field] = before + value
            elif isinstance(value, list) and isinstance(before, list):
                self._message[field] = [*before, *value]
            elif value is not None:
                self._message[field] = value
        shown = dict(delta)
        if self._num_rounds:
            if self._has_role:
                shown.pop("role", None)
            said = text(delta.get("content"))
            if said and self._has_text and self._message.get("content") == said:
                shown["content"] = BETWEEN + said
        entries = objects(delta.get("tool_calls"))
        if entries:
            calls = [entry for number, asked in enumerate(entries) for entry in self._call(asked, number)]
            shown.pop("tool_calls")
            if calls:
                shown["tool_calls"] = calls
        return shown

    def _call(self, entry: Json, number: int) -> Iterator[Json]:
        """Add a piece of a call; what of it the client may see, once it is known whose it is."""
        place = entry["index"] if isinstance(entry.get("index"), int) else number
        function = mapping(entry.get("function"))
        known = self._calls[self._places[place]] if place in self._places else None
        if known is None or (function.get("name") and entry.get("id") and entry["id"] != known.fields["id"]):
            self._places[place] = len(self._calls)
            known = _Call(entry)
            self._calls.append(known)
        else:
            known.add(function)
        if known.is_ours is None or known.is_ours:
            return
        yield self._begun(known) if known.index is None else {**entry, "index": known.index}

    def _begun(self, call: _Call) -> Json:
        """What the client is sent of one of its calls first: all of it that has come."""
        call.index = self._num_shown
        self._num_shown += 1
        return {**call.fields, "function": dict(call.fields["function"]), "index": call.index}


class _Call:
    """A call as far as it has come."""

    def __init__(self, entry: Json) -> None:
        function = mapping(entry.get("function"))
        self.fields: Json = {
            **{name: value for name, value in entry.items() if name != "index"},
            "id": text(entry.get("id")),
            "type": text(entry.get("type")) or "function",
            "function": {**function, "name": text(function.get("name")), "arguments": text(function.get("arguments"))},
        }
        self.index: int | None = None
        """The client's index; None where it was sent nothing of it."""

    @property
    def is_ours(self) -> bool | None:
        """None while that cannot be told: a name may come after its call's id, or in pieces."""
        name: str = self.fields["function"]["name"]
        if name != NAME and NAME.startswith(name) and not self.fields["function"]["arguments"]:
            return None
        return name == NAME

    def add(self, function: Json) -> None:
        """Take more of it."""
        for field in ("name", "arguments"):
            self.fields["function"][field] += text(function.get(field))
