"""Who made each tool result: pairs the results of a conversation with the calls before them.

Fed one message after the other, in order. Knows the transcript, not how anything is decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sluice.compressor.provenance.calls import read_call
from sluice.compressor.provenance.frames import is_observation, written_call
from sluice.compressor.provenance.heads import is_head, num_head_lines
from sluice.compressor.provenance.types import Kind, Provenance
from sluice.compressor.types import Message

_UNKNOWN = Provenance(Kind.OTHER)


@dataclass(frozen=True, slots=True)
class Segment:
    """One compressible text: a tool result with its provenance."""

    index: int
    """Which of the message's texts it is."""
    text: str
    provenance: Provenance


class Origins:
    """The calls of a conversation so far."""

    def __init__(self) -> None:
        self._calls: dict[str, Provenance] = {}
        """By id: what each call shows."""
        self._last_call: Provenance | None = None
        self._last_role: str | None = None

    def segments(self, message: Message) -> list[Segment]:
        """The compressible texts of the message that comes next."""
        return list(self._segments(message))

    def add(self, message: Message) -> list[Provenance]:
        """Remember a message's calls, and give what each of them will show or change."""
        calls, is_reply = message.calls, message.role == "assistant"
        if is_reply and not calls and (written := written_call("\n".join(text.text for text in message.texts))):
            calls = (written,)
        # Read here once: a shell command takes a millisecond for each thousand characters.
        shown = [read_call(call) for call in calls]
        if is_reply:
            self._last_call = shown[-1] if shown else None
            self._calls.update((call.id, one) for call, one in zip(calls, shown, strict=True) if call.id)
        self._last_role = message.role
        return shown

    def _segments(self, message: Message) -> Iterator[Segment]:
        for index, text in enumerate(message.texts):
            if text.is_result:
                call = self._calls.get(text.call_id or "") or (None if text.call_id else self._last_call)
            elif message.role == "user" and self._last_role == "assistant" and is_observation(text.text):
                call = self._last_call
            else:
                continue
            is_of_its_own = len(message.texts) > 1 and is_head(text.text)
            yield Segment(index, text.text, _of(text.text, call or _UNKNOWN, is_head=is_of_its_own))


def _of(text: str, provenance: Provenance, *, is_head: bool) -> Provenance:
    if (is_head or provenance.kind is Kind.READ) and (num_lines := num_head_lines(text)):
        return replace(provenance, num_head_lines=num_lines)
    return provenance
