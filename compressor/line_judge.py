"""The judge of the modes that drop more than repeats: a scorer's losses against a price, by line.

One dial: the price, in facts, that a saved token is worth. It is low at arrival, where the agent has not worked with
a result yet, and higher for what is old.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from sluice.compressor.conversation import Conversation, Incoming
from sluice.compressor.economics import CHARS_PER_TOKEN
from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.failures import says_failure
from sluice.compressor.judge import Keep, Verdict
from sluice.compressor.provenance import Kind
from sluice.compressor.scoring import Moment, Scorer, best_spans
from sluice.compressor.settings import CompressorSettings, Prices
from sluice.compressor.structure import Structure, structure_of

MARKER_TOKENS = 10.0
"""What a marker costs, about."""
_MAX_DOUBLINGS = 16
"""Of the price, until enough is shed: then a line of one token is worth any fact."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """An old result with what the loss of each of its lines would cost."""

    segment: SegmentEvidence
    losses: Sequence[float]
    num_tokens: Sequence[float]
    is_omitted: Sequence[bool]
    structure: Callable[[], Structure]
    """What code asks for beside; worked out where lines are dropped."""

    def keep(self, price: float, min_lines: int) -> list[bool]:
        """Which lines are worth their tokens at a price, and the lines that it takes to read them."""
        ranges = best_spans(
            self.losses,
            self.num_tokens,
            price=price,
            marker_tokens=MARKER_TOKENS,
            min_lines=min_lines,
            is_fixed=self.is_omitted,
        )
        keep = [True] * len(self.losses)
        for start, stop in ranges:
            keep[start:stop] = [False] * (stop - start)
        return self.structure().complete(keep) if ranges else keep

    def num_shed_tokens(self, keep: Sequence[bool]) -> float:
        """By how many tokens fewer it is than now, once no more than these lines stay."""
        return self._num_kept_tokens([True] * len(keep)) - self._num_kept_tokens(keep)

    def _num_kept_tokens(self, keep: Sequence[bool]) -> float:
        """Tokens of the lines that stay, and of the markers between them."""
        num_tokens, was_kept = 0.0, True
        for tokens, stays, omitted in zip(self.num_tokens, keep, self.is_omitted, strict=True):
            is_kept = stays and not omitted
            num_tokens += tokens if is_kept else MARKER_TOKENS * was_kept
            was_kept = is_kept
        return num_tokens


class LineJudge:
    """Judges by line (see `Judge`).

    Args:
        scorer: what it goes by.
        prices: see `Prices`.
        settings: shortest run, results that are too new to be judged.
    """

    def __init__(self, scorer: Scorer, prices: Prices, settings: CompressorSettings) -> None:
        self._scorer = scorer
        self._prices = prices
        self._settings = settings
        self._structures: WeakKeyDictionary[SegmentEvidence, Structure] = WeakKeyDictionary()

    def for_turn(self) -> LineJudge:
        """See `Judge`."""
        judge = copy(self)
        judge._scorer = self._scorer.for_turn()
        return judge

    def new_conversation(self, settings: CompressorSettings) -> Conversation:
        """See `Judge`."""
        return Conversation(settings.min_run_lines, with_evidence=True)

    def at_arrival(self, conversation: Conversation, incoming: Incoming) -> Mapping[int, Keep]:
        """See `Judge`."""
        evidence = _evidence(conversation)
        segments = [evidence.segment_at(conversation.num_messages, segment.index) for segment in incoming.segments]
        scored = self._score(evidence, [segment for segment in segments if segment is not None], Moment.ARRIVAL)
        return {
            found.segment.index: Keep(found.keep(self._prices.arrival, self._settings.min_dead_lines), found.losses)
            for found in scored
        }

    def candidates(self, conversation: Conversation) -> Sequence[int]:
        """See `Judge`."""
        return sorted({segment.position - 1 for segment in self._old(_evidence(conversation))})

    def at_epoch(
        self, conversation: Conversation, indexes: Sequence[int], num_tokens_to_shed: float
    ) -> Mapping[int, Verdict]:
        """See `Judge`."""
        evidence, wanted = _evidence(conversation), set(indexes)
        old = [segment for segment in self._old(evidence) if segment.position - 1 in wanted]
        scored = self._score(evidence, old, Moment.EPOCH)
        price = self._prices.epoch
        verdicts = self._verdicts(scored, price)
        if num_tokens_to_shed > 0:
            for _ in range(_MAX_DOUBLINGS):
                if sum(verdict.num_shed_tokens for verdict in verdicts.values()) >= num_tokens_to_shed:
                    break
                price *= 2
                verdicts = self._verdicts(scored, price)
        return verdicts

    def _verdicts(self, scored: Sequence[_Scored], price: float) -> dict[int, Verdict]:
        num_shed: dict[int, float] = {}
        keeps: dict[int, dict[int, Keep]] = {}
        for found in scored:
            index = found.segment.position - 1
            keep = found.keep(price, self._settings.min_dead_lines)
            keeps.setdefault(index, {})[found.segment.index] = Keep(keep, found.losses)
            num_shed[index] = num_shed.get(index, 0.0) + found.num_shed_tokens(keep)
        return {index: Verdict(num_shed[index], keep) for index, keep in keeps.items()}

    def _old(self, evidence: Evidence) -> Sequence[SegmentEvidence]:
        """Results that the agent has had time to work with, and that are no reports of edits."""
        num_old = max(0, len(evidence.segments) - self._settings.num_exempt_results)
        return [segment for segment in evidence.segments[:num_old] if segment.provenance.kind is not Kind.EDIT]

    def _score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[_Scored]:
        max_lines = self._settings.max_scored_lines
        segments = [s for s in segments if s.provenance.kind is not Kind.EDIT and len(s.lines) <= max_lines]
        return [
            _Scored(
                segment,
                _losses(segment, losses, moment),
                [(len(text) + 1) / CHARS_PER_TOKEN for text in segment.lines.texts],
                [not visible for visible in evidence.line_visible[segment.start : segment.stop]],
                partial(self._structure, segment),
            )
            for segment, losses in zip(segments, self._scorer.score(evidence, segments, moment), strict=True)
        ]

    def _structure(self, segment: SegmentEvidence) -> Structure:
        found = self._structures.get(segment)
        if found is None:
            found = self._structures[segment] = structure_of(segment.lines, segment.provenance)
        return found


def _losses(segment: SegmentEvidence, losses: Sequence[float], moment: Moment) -> Sequence[float]:
    """The scorer's, less what is not for a model to weigh.

    That is how a call ended or where it goes on, where a text says that alone; and what went wrong in a run, as long as
    it is news.
    """
    if segment.provenance.num_head_lines >= len(segment.lines):
        return [1.0] * len(losses)
    if moment is not Moment.ARRIVAL or segment.provenance.kind is not Kind.RUN:
        return losses
    return [1.0 if says_failure(text) else loss for text, loss in zip(segment.lines.texts, losses, strict=True)]


def _evidence(conversation: Conversation) -> Evidence:
    assert conversation.evidence is not None, "conversations of this judge carry evidence"
    return conversation.evidence
