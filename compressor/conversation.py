"""One conversation as far as it was forwarded: who called what, which files were edited, which lines are visible.

Grows by one message at a time, so that a turn costs its new messages and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluice.compressor import recovery
from sluice.compressor.evidence import Evidence
from sluice.compressor.files import FileHistory
from sluice.compressor.ledger import Omitted, Reason, Rendition, recall_id
from sluice.compressor.lines import Lines, split
from sluice.compressor.patches import new_side
from sluice.compressor.pins import Pin
from sluice.compressor.provenance import Kind, Origins, Provenance, Segment, decode_arguments, same_path, strings
from sluice.compressor.recovery import Gap, Touch
from sluice.compressor.redundancy import Source, VisibleLines
from sluice.compressor.types import Message

_BYTES_AT_LEAST = 16_000
_BYTES_A_CHAR = 5
_BYTES_A_SCORED_CHAR = 12
"""Measured on recorded conversations: 7 to 15."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that was received and is not forwarded yet."""

    message: Message
    segments: Sequence[Segment]
    """Its compressible texts."""
    called: Sequence[Provenance]
    """What its calls will show or change."""


class Conversation:
    """What the planner may look at.

    Args:
        window: shortest run of lines that can be found again.
        with_evidence: whether to gather what a scorer looks at.
    """

    def __init__(self, window: int, *, with_evidence: bool = False) -> None:
        self.visible = VisibleLines(window)
        self.files = FileHistory()
        self.evidence = Evidence(self.files) if with_evidence else None
        self.identities: list[bytes] = []
        """Of each message."""
        self.num_chars = 0
        self.gaps: list[Gap] = []
        """Lines that were dropped and that no other place shows."""
        self.pins: Sequence[Pin] = ()
        """Lines that a person wants kept; set anew on every turn."""
        self._window = window
        self._origins = Origins()
        self._reviewed_at = 0.0
        self._written: list[str] = []
        """What was written since the last tool result."""

    def receive(self, message: Message) -> Incoming:
        """Take in what the client sent; `forward` has to follow."""
        segments = self._origins.segments(message)
        called = self._origins.add(message)
        self.identities.append(message.identity)
        self.num_chars += message.num_chars
        for provenance in called:
            self.files.add(provenance, self.num_messages)
        if self.evidence is not None:
            self.evidence.add(message, segments, called)
        return Incoming(message, segments, called)

    @property
    def num_messages(self) -> int:
        """Received so far."""
        return len(self.identities)

    def num_bytes(self) -> int:
        """What it takes of memory, by estimate."""
        return _BYTES_AT_LEAST + self.num_chars * (_BYTES_A_CHAR if self.evidence is None else _BYTES_A_SCORED_CHAR)

    def is_current(self, source: Source, provenance: Provenance) -> bool:
        """Whether what a source shows still holds for a new result.

        A file's content does until the file is edited. After that only a new read of the same file may lean on it:
        that it shows the same lines proves that these are current.
        """
        if source.path is None:
            return True
        if provenance.path is not None and same_path(provenance.path, source.path):
            return True
        return not any(position > source.position for position in self.files.edits(source.path))

    def is_review_due(self, num_tokens: float) -> bool:
        """Whether the conversation has grown by a seventh since its history was last looked through."""
        if num_tokens < 8 / 7 * self._reviewed_at:
            return False
        self.note_review(num_tokens)
        return True

    def note_review(self, num_tokens: float) -> None:
        """Its history, of this size, has just been looked through."""
        self._reviewed_at = num_tokens

    def touch(self, incoming: Incoming) -> Touch:
        """What a message with tool results, and those since the last one, touch."""
        return Touch(tuple(self._written), [(segment.text, segment.provenance) for segment in incoming.segments])

    def forward(self, incoming: Incoming, texts: Sequence[str], rendition: Rendition) -> None:
        """Take in what the message received last is forwarded as.

        Args:
            incoming: as received.
            texts: as they are forwarded. A marker in them equals no line of a later result, and so parts the lines
                around it.
            rendition: as it is frozen.
        """
        position = self.num_messages
        segments = {segment.index: segment for segment in incoming.segments}
        for index, text in enumerate(texts):
            segment = segments.get(index)
            kind = segment.provenance.kind if segment is not None else None
            path = segment.provenance.path if segment is not None and kind is Kind.READ else None
            self.visible.add(split(text), Source(position, path))
            if kind is Kind.DIFF:
                self._add_new_side(text, Source(position))
        self._note_omissions(incoming.message, segments, rendition)
        if segments:
            self._written.clear()
        else:
            self._written += texts
        for call, provenance in zip(incoming.message.calls, incoming.called, strict=False):
            written = strings(decode_arguments(call))
            self._written += written
            if provenance.kind is Kind.EDIT:
                self._add_written(written, Source(position, provenance.path))

    def _note_omissions(self, message: Message, segments: Mapping[int, Segment], rendition: Rendition) -> None:
        for position, text_index, start, stop in rendition.restored:
            of_text = [gap for gap in self.gaps if (gap.position, gap.text_index) == (position, text_index)]
            self.gaps = [gap for gap in self.gaps if gap not in of_text]
            self.gaps += [rest for gap in of_text for rest in recovery.less(gap, start, stop)]
        lines: dict[int, Lines] = {}
        for omitted in rendition.omitted:
            self._omit(omitted)
            if omitted.reason is not Reason.NOT_NEEDED:
                continue
            segment = segments[omitted.text_index]
            if omitted.text_index not in lines:
                lines[omitted.text_index] = split(segment.text)
            self.gaps.append(
                Gap(
                    position=self.num_messages,
                    text_index=omitted.text_index,
                    start=omitted.start,
                    stop=omitted.stop,
                    lines=lines[omitted.text_index],
                    recall_id=recall_id(message.identity, omitted.text_index),
                    path=segment.provenance.path,
                    first_line=segment.provenance.first_line if segment.provenance.kind is Kind.READ else None,
                    num_head_lines=segment.provenance.num_head_lines,
                )
            )

    def _omit(self, omitted: Omitted) -> None:
        if self.evidence is None:
            return
        segment = self.evidence.segment_at(self.num_messages, omitted.text_index)
        assert segment is not None, "only tool results are shortened"
        self.evidence.omit(segment, omitted.start, omitted.stop)

    def _add_written(self, texts: Sequence[str], source: Source) -> None:
        """A file that the agent writes is visible in its call."""
        for text in texts:
            if text.count("\n") >= self._window - 1:
                self.visible.add(split(text), source)
                self._add_new_side(text, source)

    def _add_new_side(self, text: str, source: Source) -> None:
        for hunk in new_side(text):
            self.visible.add(hunk, source)
