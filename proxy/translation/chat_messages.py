"""Builds the `messages` of a chat request so that every server takes them, in whatever order the pieces came.

One system message at the head; calls and their results side by side; no two user messages in a row, as many chat
templates refuse them. What was built is only ever appended to while the client appends to its own list, so that the
upstream's prefix cache holds. Knows no wire format but chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sluice.proxy.translation.json_codec import Json

NO_RESULT = "[no result]"
"""Stands for the result of a call that the client never gave one for; servers refuse a call without."""
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call."""

    call_id: str
    name: str
    arguments: str
    """JSON."""


class ChatMessages:
    """The messages of one chat request, in the making.

    Args:
        call_extra: fields that each call has beside its own, as the model wants it.
    """

    def __init__(self, call_extra: Json) -> None:
        self._call_extra = call_extra
        self._system: list[str] = []
        self._messages: list[Json] = []
        self._open: list[str] = []
        self._deferred: list[Json] = []

    def system(self, text: str) -> None:
        """Add instructions. After the first message they are said in the user's place, marked as what they are.

        Chat templates refuse a system message that is not the first.
        """
        if not text:
            return
        if self._messages:
            self.user([text_part(f"<system>\n{text}\n</system>")])
        else:
            self._system.append(text)

    def user(self, parts: Sequence[Json]) -> None:
        """Add what the user says: parts of the chat format."""
        if not parts:
            return
        if self._open:  # until the results are all here
            self._deferred += parts
            return
        last = self._messages[-1] if self._messages else None
        if last is not None and last["role"] == "user":
            last["content"] += parts
        else:
            self._messages.append({"role": "user", "content": list(parts)})

    def assistant(self, text: str, calls: Sequence[Call] = (), thinking: Json | None = None) -> None:
        """Add what the model said; what it said in several messages in a row becomes one.

        Args:
            text: may be empty.
            calls: its calls.
            thinking: what it thought, by the field that it has to go back in.
        """
        if not text and not calls:
            return
        last = self._messages[-1] if self._messages else None
        if last is None or last["role"] != "assistant" or self._deferred:
            self._close_calls()
            last = {"role": "assistant", "content": None}
            self._messages.append(last)
        if text:
            last["content"] = text if last["content"] is None else last["content"] + _BETWEEN + text
        if calls:
            last.setdefault("tool_calls", []).extend({**_call(call), **self._call_extra} for call in calls)
            self._open += [call.call_id for call in calls]
        for field, thought in (thinking or {}).items():
            last[field] = last.get(field, "") + thought

    def result(self, call_id: str, text: str, parts: Sequence[Json] = ()) -> None:
        """Add a call's result.

        Args:
            call_id: whose.
            text: what it says.
            parts: images and files, which a tool message cannot hold; the user's next message does.
        """
        if call_id in self._open:
            self._open.remove(call_id)
            self._messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
            self._deferred += parts
            if not self._open:
                self._flush()
        else:  # the call is gone, after a client cut its history, say: as a result it would be refused
            self.user([text_part(f"[result of a call that is no longer shown: {call_id}]\n{text}"), *parts])

    def finish(self) -> list[Json]:
        """The messages. Calls at the very end may still wait for their results."""
        if self._deferred:
            self._close_calls()
        system: list[Json] = []
        if self._system:
            system = [{"role": "system", "content": _BETWEEN.join(self._system)}]
        return [*system, *(_plain(message) for message in self._messages)]

    def _close_calls(self) -> None:
        for call_id in self._open:
            self._messages.append({"role": "tool", "tool_call_id": call_id, "content": NO_RESULT})
        self._open.clear()
        self._flush()

    def _flush(self) -> None:
        parts, self._deferred = self._deferred, []
        self.user(parts)


def text_part(text: str) -> Json:
    """A part that is text."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: object = None) -> Json:
    """A part that is an image, by its URL, `data:` included."""
    image: Json = {"url": url}
    if isinstance(detail, str):
        image["detail"] = detail if detail in ("low", "high") else "auto"
    return {"type": "image_url", "image_url": image}


def _call(call: Call) -> Json:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _plain(message: Json) -> Json:
    """Content that is text alone as one string: not every server reads parts."""
    content = message["content"]
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        return {**message, "content": _BETWEEN.join(part["text"] for part in content)}
    return message
