"""The search tool on OpenAI's Responses wire: what is said, called and found are items of one list."""

from __future__ import annotations

from collections.abc import Sequence

from sluice.proxy.body import Body
from sluice.proxy.search_tool.definition import NAME
from sluice.proxy.search_tool.form import Kept, Stream
from sluice.proxy.search_tool.rounds import Call, Round, gone_on, usage_of
from sluice.proxy.translation.deltas import Fault
from sluice.proxy.translation.faults import responses_error
from sluice.proxy.translation.json_codec import Json, decode_object, encode, mapping, objects, text
from sluice.proxy.translation.sse import DONE, Event, is_done, rendered
from sluice.proxy.translation.sse import event as written

_CLIENTS_CALLS = frozenset(
    ("function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "computer_call")
)
_BEGINNINGS = frozenset(("response.created", "response.queued", "response.in_progress"))
_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))


class ResponsesForm:
    """See `Form`."""

    list_field = "input"

    def tool(self, name: str, description: str, parameters: Json) -> Json:
        """See `Form`."""
        return {
            "type": "function",
            "name": name,
            "description": description,
            "parameters": parameters,
            "strict": False,
        }

    def fits(self, body: Body) -> bool:
        """See `Form`. A response that the upstream keeps could be gone on with where ours has not answered yet."""
        return body.field("store") == b"false" and body.field("background") in (b"", b"false", b"null")

    def stream(self) -> Stream:
        """See `Form`."""
        return ResponsesStream()

    def read(self, body: Json) -> Round | None:
        """See `Form`."""
        if body.get("object") != "response":
            return None
        return _round(objects(body.get("output")), is_completed=body.get("status") == "completed")

    def spliced(self, bodies: Sequence[Json]) -> Json:
        """See `Form`."""
        shown = [item for body in bodies for item in objects(body.get("output")) if not _is_ours(item)]
        return {**bodies[-1], "id": bodies[0].get("id"), "output": shown, "usage": usage_of(bodies) or None}

    def told(self, rounds: Sequence[Round]) -> list[Json]:
        """See `Form`."""
        return [part for one in rounds for part in one.parts if not _is_ours(part)]

    def answered(self, parts: Sequence[Json], results: Sequence[tuple[Call, str]]) -> list[Json]:
        """See `Form`."""
        return [*filter(_can_be_given_back, parts), *self.results(results)]

    def shown(self, hidden: Sequence[Round]) -> list[bytes]:
        """See `Form`."""
        return [_essence(part) for one in hidden for part in one.parts if not _is_ours(part)]

    def our_calls(self, last: Round) -> list[Json]:
        """See `Form`."""
        return [part for part in last.parts if _is_ours(part)]

    def results(self, results: Sequence[tuple[Call, str]]) -> list[Json]:
        """See `Form`."""
        return [{"type": "function_call_output", "call_id": call.id, "output": found} for call, found in results]

    def restored(self, run: Sequence[bytes], after: bytes | None, kept: Kept) -> list[bytes]:
        """See `Form`."""
        shown, num_known = list(kept.shown), 0
        for raw in run:
            essence = _essence(decode_object(raw))
            if essence not in shown:
                break
            del shown[: shown.index(essence) + 1]
            num_known += 1
        behind = [after] if after is not None else []
        return [*kept.hidden, *run[num_known:], *kept.calls, *kept.results, *behind]


class ResponsesStream:
    """See `Stream`."""

    def __init__(self) -> None:
        self._num_rounds = 0
        """Before this one."""
        self._num_events = 0
        """That the client was sent, or will be."""
        self._num_shown = 0
        """Items that the client was sent."""
        self._id: object = None
        self._usage: Json = {}
        """Of the rounds before this one, as the client would be told it."""
        self._before: list[Json] = []
        """Items that the client was sent in rounds before this one."""
        self._begin()

    def _begin(self) -> None:
        self._items: dict[int, Json] = {}
        """This round's items that are whole, by the upstream's index."""
        self._indexes: dict[int, int | None] = {}
        """The client's index of each item; None for those that it does not see."""
        self._end: Json | None = None
        self._is_done = False

    def feed(self, event: Event) -> bytes:
        """See `Stream`."""
        if is_done(event):
            self._is_done = True
            return b""
        data = decode_object(event.data)
        kind, index = text(data.get("type")), data.get("output_index")
        if kind in _BEGINNINGS:
            self._id = self._id or mapping(data.get("response")).get("id")
            return b"" if self._num_rounds else self._sent(event, data, data)
        if kind in _ENDS:
            self._end = data
            return b""
        if not isinstance(index, int):
            return self._sent(event, data, data)
        item = mapping(data.get("item"))
        if kind == "response.output_item.done":
            self._items[index] = item
        if index not in self._indexes:
            is_hidden = _is_ours(item)
            self._indexes[index] = None if is_hidden else self._num_shown
            self._num_shown += not is_hidden
        shown = self._indexes[index]
        return b"" if shown is None else self._sent(event, data, {**data, "output_index": shown})

    def round(self) -> Round | None:
        """See `Stream`."""
        if self._end is None:
            return None
        return _round(self._parts, is_completed=self._end.get("type") == "response.completed")

    def next_round(self) -> None:
        """See `Stream`."""
        assert self._end is not None, "the round is whole"
        self._usage = gone_on(self._usage, mapping(mapping(self._end.get("response")).get("usage")))
        self._before += [part for part in self._parts if not _is_ours(part)]
        self._num_rounds += 1
        self._begin()

    def finish(self) -> bytes:
        """See `Stream`."""
        end = self._end
        if end is None:
            return b""
        response = dict(mapping(end.get("response")))
        if self._num_rounds:
            response["id"] = self._id
            response["usage"] = gone_on(self._usage, mapping(response.get("usage")))
        if self._num_rounds or any(map(_is_ours, self._parts)):
            response["output"] = self._output
        last = self._sent(Event(text(end.get("type")), b""), {}, {**end, "response": response})
        return last + (rendered(Event("", DONE)) if self._is_done else b"")

    def fail(self, fault: Fault) -> bytes:
        """See `Stream`."""
        response = {**mapping(mapping(self._end).get("response")), "id": self._id, "output": self._output}
        response |= {"status": "failed", "error": responses_error(fault)}
        kind = "response.failed"
        return self._sent(Event(kind, b""), {}, {**mapping(self._end), "type": kind, "response": response})

    @property
    def _output(self) -> list[Json]:
        """What the client was sent, of all rounds."""
        return [*self._before, *(part for part in self._parts if not _is_ours(part))]

    @property
    def _parts(self) -> list[Json]:
        """The round's items; some servers name them at its end alone."""
        listed = objects(mapping(mapping(self._end).get("response")).get("output"))
        return [self._items[index] for index in sorted(self._items)] or listed

    def _sent(self, event: Event, before: Json, data: Json) -> bytes:
        """An event with its number among those that the client gets; as it came where that changes nothing."""
        if "sequence_number" in data:
            data = {**data, "sequence_number": self._num_events}
        self._num_events += 1
        return rendered(event) if data == before else written(data, name=event.name)


def _round(items: Sequence[Json], *, is_completed: bool) -> Round:
    ours = [item for item in items if _is_ours(item)]
    calls = tuple(Call(text(item.get("call_id")), text(item.get("arguments"))) for item in ours)
    num_others = sum(text(item.get("type")) in _CLIENTS_CALLS for item in items) - len(ours)
    said = (part for item in items if item.get("type") == "message" for part in objects(item.get("content")))
    has_text = any(text(part.get("text")).strip() for part in said)
    return Round(tuple(items), calls, num_others, is_completed, has_text)


def _is_ours(item: Json) -> bool:
    return item.get("type") == "function_call" and item.get("name") == NAME


def _can_be_given_back(item: Json) -> bool:
    """Whether an upstream that keeps nothing can read an item: reasoning that is neither sealed nor said is lost."""
    return item.get("type") != "reasoning" or bool(item.get("encrypted_content") or item.get("content"))


def _essence(item: Json) -> bytes:
    """What tells an item from others, whatever else a client makes of it."""
    kind = text(item.get("type")) or "message"
    if kind == "message":
        return encode([kind, "".join(text(part.get("text")) for part in objects(item.get("content"))).strip()])
    if kind == "reasoning":
        said = [text(part.get("text")) for part in (*objects(item.get("summary")), *objects(item.get("content")))]
        return encode([kind, text(item.get("encrypted_content")) or "".join(said)])
    return encode([kind, text(item.get("call_id")) or text(item.get("id"))])
