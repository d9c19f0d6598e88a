"""One conversation as far as it was forwarded: who called what, which files were edited, which lines are visible.

Grows by one message at a time, so that a turn costs its new messages and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sluice.compressor.lines import split
from sluice.compressor.patches import new_side
from sluice.compressor.provenance import Kind, Origins, Provenance, Segment, decode_arguments, same_path
from sluice.compressor.redundancy import Source, VisibleLines
from sluice.compressor.types import Message


class Conversation:
    """What the planner may look at.

    Args:
        window: shortest run of lines that can be found again.
    """

    def __init__(self, window: int) -> None:
        self.visible = VisibleLines(window)
        self.num_messages = 0
        self._window = window
        self._origins = Origins()
        self._reviewed_at = 0.0
        self._edits: dict[str, list[tuple[str, int]]] = {}

    def segments(self, message: Message) -> list[Segment]:
        """The compressible texts of the message that comes next."""
        return self._origins.segments(message)

    def is_current(self, source: Source, provenance: Provenance) -> bool:
        """Whether what a source shows still holds for a new result.

        A file's content does until the file is edited. After that only a new read of the same file may lean on it:
        that it shows the same lines proves that these are current.
        """
        if source.path is None:
            return True
        if provenance.path is not None and same_path(provenance.path, source.path):
            return True
        edits = self._edits.get(_name(source.path), ())
        return not any(position > source.position and same_path(path, source.path) for path, position in edits)

    def is_review_due(self, num_tokens: float) -> bool:
        """Whether the conversation has grown by a twentieth since its history was last looked through."""
        if num_tokens < 1.05 * self._reviewed_at:
            return False
        self._reviewed_at = num_tokens
        return True

    def add(self, message: Message, texts: Sequence[str]) -> None:
        """Take in the next message as it is forwarded.

        Args:
            message: as the client sent it.
            texts: its texts as they are forwarded, markers and all. A marker equals no line of a later result, and so
                parts the lines around it.
        """
        segments = {segment.index: segment for segment in self.segments(message)}
        self.num_messages += 1
        position = self.num_messages
        for index, text in enumerate(texts):
            segment = segments.get(index)
            is_read = segment is not None and segment.provenance.kind is Kind.READ
            path = segment.provenance.path if segment is not None and is_read else None
            self.visible.add(split(text), Source(position, path))
            if segment is not None and segment.provenance.kind is Kind.DIFF:
                self._add_new_side(text, Source(position))
        for call, provenance in zip(message.calls, self._origins.add(message), strict=False):
            if provenance.kind is Kind.EDIT:
                for written in _long_strings(decode_arguments(call), self._window):
                    self.visible.add(split(written), Source(position, provenance.path))
                    self._add_new_side(written, Source(position, provenance.path))
            for path in provenance.edited_paths:
                self._edits.setdefault(_name(path), []).append((path, position))

    def _add_new_side(self, text: str, source: Source) -> None:
        for hunk in new_side(text):
            self.visible.add(hunk, source)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _long_strings(value: Any, min_lines: int) -> Iterator[str]:
    """The strings in a call's arguments that are long enough to be found again."""
    if isinstance(value, str):
        if value.count("\n") >= min_lines - 1:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _long_strings(inner, min_lines)
    elif isinstance(value, list):
        for inner in value:
            yield from _long_strings(inner, min_lines)
