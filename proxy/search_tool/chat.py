"""The search tool on OpenAI's chat wire: an answer is one message, calls are a list in it, results are messages."""

from __future__ import annotations

from collections.abc import Sequence

from sluice.proxy.body import Body
from sluice.proxy.search_tool.chat_round import BETWEEN, finish_reason, is_ours, round_of
from sluice.proxy.search_tool.chat_stream import ChatStream
from sluice.proxy.search_tool.form import Kept, Stream
from sluice.proxy.search_tool.rounds import Call, Round, usage_of
from sluice.proxy.translation.json_codec import Json, decode, decode_object, encode, mapping, objects, text
from sluice.proxy.translation.thinking import FIELDS

_DETAILS = "reasoning_details"
"""OpenRouter's field for thoughts, a list; of a stream the client has those of all rounds."""


class ChatForm:
    """See `Form`."""

    list_field = "messages"

    def tool(self, name: str, description: str, parameters: Json) -> Json:
        """See `Form`."""
        return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}

    def fits(self, body: Body) -> bool:
        """See `Form`."""
        return body.field("n") in (b"", b"1", b"null")

    def stream(self) -> Stream:
        """See `Form`."""
        return ChatStream()

    def read(self, body: Json) -> Round | None:
        """See `Form`."""
        choices = objects(body.get("choices"))
        if not choices:
            return None
        return round_of(mapping(choices[0].get("message")), text(choices[0].get("finish_reason")))

    def spliced(self, bodies: Sequence[Json]) -> Json:
        """See `Form`."""
        first, last = bodies[0], bodies[-1]
        choice = objects(last.get("choices"))[0]
        messages = [mapping(objects(body.get("choices"))[0].get("message")) for body in bodies]
        shown = {**messages[-1], "content": _content(messages)}
        for field in FIELDS:
            if thought := "".join(text(message.get(field)) for message in messages):
                shown[field] = thought
        others = [call for call in objects(shown.get("tool_calls")) if not is_ours(call)]
        shown.pop("tool_calls", None)
        if others:
            shown["tool_calls"] = others
        usage = usage_of(bodies)
        reason = finish_reason(choice.get("finish_reason"), has_calls=bool(others))
        spliced = {**last, "id": first.get("id"), "choices": [{**choice, "message": shown, "finish_reason": reason}]}
        return {**spliced, "usage": usage} if usage else spliced

    def told(self, rounds: Sequence[Round]) -> list[Json]:
        """See `Form`."""
        messages = [one.parts[0] for one in rounds]
        others = [call for call in objects(messages[-1].get("tool_calls")) if not is_ours(call)]
        return [{"role": "assistant", "content": _content(messages), **({"tool_calls": others} if others else {})}]

    def answered(self, parts: Sequence[Json], results: Sequence[tuple[Call, str]]) -> list[Json]:
        """See `Form`."""
        return [*parts, *self.results(results)]

    def shown(self, hidden: Sequence[Round]) -> list[bytes]:
        """See `Form`."""
        said = [one.parts[0] for one in hidden]
        fields: Json = {"content": _content(said) or ""}
        fields |= {field: thought for field in FIELDS if (thought := "".join(text(m.get(field)) for m in said))}
        fields[_DETAILS] = [detail for one in said for detail in objects(one.get(_DETAILS))]
        return [encode([field, value]) for field, value in fields.items() if value]

    def our_calls(self, last: Round) -> list[Json]:
        """See `Form`."""
        return [call for call in objects(last.parts[0].get("tool_calls")) if is_ours(call)]

    def results(self, results: Sequence[tuple[Call, str]]) -> list[Json]:
        """See `Form`."""
        return [{"role": "tool", "tool_call_id": call.id, "content": found} for call, found in results]

    def restored(self, run: Sequence[bytes], after: bytes | None, kept: Kept) -> list[bytes]:
        """See `Form`."""
        message = decode_object(run[0])
        for field, value in map(decode, kept.shown):
            _take_off(message, field, value)
        if kept.calls:
            message["tool_calls"] = [*objects(message.get("tool_calls")), *map(decode, kept.calls)]
        is_empty = not any(message.get(field) for field in ("content", "tool_calls", *FIELDS))
        said = [] if is_empty else [encode(message)]
        return [*kept.hidden, *said, *kept.results, *run[1:], *([after] if after is not None else [])]


def _content(messages: Sequence[Json]) -> str | None:
    """The texts of several rounds as the text of one answer."""
    return BETWEEN.join(said for message in messages if (said := text(message.get("content")))) or None


def _take_off(message: Json, field: str, shown: str | list[Json]) -> None:
    """Take what was shown of hidden rounds off the beginning of a message's field, if it is still there."""
    value = message.get(field)
    if isinstance(shown, list):
        if isinstance(value, list) and value[: len(shown)] == shown:
            message[field] = value[len(shown) :]
            if not message[field]:
                del message[field]
    elif isinstance(value, str) and value.startswith(shown):
        rest = value[len(shown) :]
        rest = rest.removeprefix(BETWEEN) if field == "content" else rest
        message[field] = rest or (None if message.get("tool_calls") else "")
    elif isinstance(value, list) and value and text(mapping(value[0]).get("text")).startswith(shown):
        rest = value[0]["text"][len(shown) :].removeprefix(BETWEEN)
        message[field] = [{**value[0], "text": rest}, *value[1:]] if rest else value[1:]
