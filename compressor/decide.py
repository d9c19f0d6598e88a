"""Decides one new message: its segments, what each loses, and the rendition that is frozen.

Deterministic: the same messages before it, forwarded the same, give the same bytes in every process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sluice.compressor import ledger, recovery
from sluice.compressor.conversation import Conversation, Incoming
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.judge import Keep
from sluice.compressor.ledger import RECORD_VERSION, Omitted, Reason, Rendition
from sluice.compressor.lines import split
from sluice.compressor.pins import pinned_lines
from sluice.compressor.planner import Omission, plan
from sluice.compressor.recovery import Gap
from sluice.compressor.renderer import render
from sluice.compressor.settings import POLICY_VERSION, CompressorSettings
from sluice.compressor.types import Message


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one message."""

    rendition: Rendition
    texts: tuple[str, ...]
    """Its texts as they are forwarded."""
    originals: Mapping[str, str] = field(default_factory=dict)
    """Recall id → original text, of what was shortened."""


def untouched(message: Message) -> Decision:
    """The decision to forward a message as it came."""
    rendition = Rendition(RECORD_VERSION, POLICY_VERSION)
    return Decision(rendition, tuple(text.text for text in message.texts))


def replayed(message: Message, rendition: Rendition, dialect: Dialect) -> Decision:
    """The decision that a rendition from the ledger holds."""
    if rendition.body is None:
        return Decision(rendition, tuple(text.text for text in message.texts))
    return Decision(rendition, tuple(text.text for text in dialect.parse(rendition.body).texts))


def extended(message: Message, raw: bytes, dialect: Dialect, addition: str) -> Decision:
    """The decision to forward a message with something behind its last text that is no tool output."""
    last = max(index for index, text in enumerate(message.texts) if not text.is_result)
    texts = tuple(
        text.text if index != last else f"{text.text}\n\n{addition}" for index, text in enumerate(message.texts)
    )
    rendition = Rendition(
        RECORD_VERSION,
        POLICY_VERSION,
        body=dialect.render(raw, {last: texts[last]}),
        num_chars_saved=-len(addition) - 2,
    )
    return Decision(rendition, texts)


def decide(
    incoming: Incoming,
    raw: bytes,
    dialect: Dialect,
    conversation: Conversation,
    keep: Mapping[int, Keep],
    gaps: Sequence[Gap],
    settings: CompressorSettings,
) -> Decision:
    """Decide the message that a conversation received last.

    Args:
        incoming: parsed from `raw`.
        raw: as the client sent it.
        dialect: writes the rendition.
        conversation: everything before it, as it was forwarded, and the pins of its lines. Not changed.
        gaps: dropped lines to give back at the end of its last result.
        keep: for each text that was judged, by index, which of its lines are worth their tokens.
        settings: see `CompressorSettings`.
    """
    shortened: dict[int, str] = {}
    originals: dict[str, str] = {}
    omissions: list[Omission] = []
    ranges: list[Omitted] = []
    message, segments = incoming.message, incoming.segments
    for segment in segments:
        lines = split(segment.text)
        recall_id = ledger.recall_id(message.identity, segment.index)
        judged = keep.get(segment.index)
        omitted = plan(
            lines,
            segment.provenance,
            recall_id,
            conversation.visible,
            conversation.is_current,
            judged.is_worth if judged is not None else None,
            settings,
            pinned=pinned_lines(conversation.pins, recall_id),
        )
        if omitted:
            shortened[segment.index] = render(lines, omitted)
            originals[recall_id] = segment.text
            omissions += omitted
            ranges += [_omitted(segment.index, omission, judged) for omission in omitted]
    if gaps and segments:
        last = segments[-1]
        text = shortened.get(last.index, last.text)
        shortened[last.index] = text + ("" if text.endswith("\n") else "\n") + recovery.render(gaps)
    if not shortened:
        return untouched(message)
    references = tuple(sorted({omission.position for omission in omissions if omission.position is not None}))
    texts = tuple(shortened.get(index, text.text) for index, text in enumerate(message.texts))
    rendition = Rendition(
        RECORD_VERSION,
        POLICY_VERSION,
        body=dialect.render(raw, shortened),
        num_markers=len(omissions),
        num_lines_omitted=sum(omission.stop - omission.start for omission in omissions),
        num_chars_saved=sum(len(text.text) for text in message.texts) - sum(map(len, texts)),
        references=references,
        omitted=tuple(ranges),
        restored=tuple((gap.position, gap.text_index, gap.start, gap.stop) for gap in gaps),
        referred=tuple(ledger.short(conversation.identities[position - 1]) for position in references),
    )
    return Decision(rendition, texts, originals)


def _omitted(text_index: int, omission: Omission, judged: Keep | None) -> Omitted:
    start, stop, reason = omission.start, omission.stop, omission.reason
    score = judged.score(start, stop) if judged is not None and reason is Reason.NOT_NEEDED else None
    return Omitted(text_index, start, stop, reason, score)
