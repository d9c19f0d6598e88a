"""Scores lines by a network's logits and their features where the network answers in time, and by features where not.

What became of a result is held as long as its conversation is, and kept beside the ledger (`score_cache.py`): neither
a rewrite of the history nor another process that decides the same asks again, or decides otherwise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.scoring.base import Moment
from sluice.compressor.scoring.feature_scorer import FeatureScorer
from sluice.compressor.scoring.neural.asked import Asked
from sluice.compressor.scoring.neural.combine import combined
from sluice.compressor.scoring.neural.processor import Processor
from sluice.compressor.scoring.neural.score_cache import Outcome, ScoreCache, decode, encode, key_of
from sluice.compressor.scoring.neural.scores import Fallback, LineScores
from sluice.compressor.scoring.neural.watch import ScorerWatch

logger = logging.getLogger(__name__)

DEADLINE_S = 0.03
"""What a network may add to a request, in seconds."""

_CHARS_PER_S = 2e6
"""How fast windows are made, until it has been seen: they take as long as the features, and cannot be broken off."""
_MIN_TIMED_CHARS = 500
_PACE_WEIGHT = 0.1
"""What one result counts for in how fast windows are made."""


@dataclass(slots=True)
class _Allowance:
    """What is left of a request's time."""

    left_s: float

    def spend(self, since_s: float) -> None:
        self.left_s -= time.perf_counter() - since_s


class NeuralScorer:
    """Scores lines with a network and their features (see `Scorer`).

    Args:
        features: scores what the network does not.
        load: reads what windows are made by and combined by, on a thread of its own; what it raises is logged, and
            lines are scored by their features then.
        scores: the network, wherever it is.
        deadline_s: what it may add to a request.
        cache: where outcomes are kept; None keeps them with the conversation alone.
        watch: is told what becomes of the results.
    """

    def __init__(
        self,
        features: FeatureScorer,
        load: Callable[[], Processor],
        scores: LineScores,
        *,
        deadline_s: float = DEADLINE_S,
        cache: ScoreCache | None = None,
        watch: ScorerWatch | None = None,
    ) -> None:
        self._features = features
        self._load = load
        self._scores = scores
        self._deadline_s = deadline_s
        self._cache = cache
        self._watch = watch
        self._processor: Processor | None = None
        self._why_not = Fallback.LOADING
        self._chars_per_s = _CHARS_PER_S
        self._outcomes: WeakKeyDictionary[SegmentEvidence, Outcome] = WeakKeyDictionary()
        self._loader = threading.Thread(target=self._load_processor, name="sluice-scorer-processor", daemon=True)

    def start(self) -> None:
        """Begin to load. Until that is done, lines are scored by their features."""
        self._scores.start()
        self._loader.start()

    async def aclose(self) -> None:
        """Let go of the network."""
        await self._scores.aclose()

    def for_turn(self) -> _TurnScorer:
        """See `Scorer`: the deadline holds for all that is scored in a request, together."""
        return _TurnScorer(self, _Allowance(self._deadline_s))

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        """See `Scorer`."""
        return self.for_turn().score(evidence, segments, moment)

    def score_within(
        self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment, allowance: _Allowance
    ) -> list[Sequence[float]]:
        """Score, and take what that takes off the allowance."""
        if not segments:
            return []
        left_s = allowance.left_s
        started_s = time.perf_counter()
        asked = self._ask(evidence, segments, allowance)
        allowance.spend(started_s)
        # The features are needed either way, and the network has time meanwhile.
        table, margins = self._features.margins(evidence, segments, moment)
        before_s = time.perf_counter()
        self._collect(asked, allowance)
        logits = [outcome.logits if (outcome := self._outcomes.get(segment)) else None for segment in segments]
        if self._processor is not None and any(found is not None for found in logits):
            margins = combined(self._processor.combination, table, margins, logits)
        allowance.spend(before_s)
        if self._watch is not None:
            self._watch.waited(left_s - allowance.left_s)
        return self._features.losses(table, margins, moment)

    def _load_processor(self) -> None:
        try:
            self._processor = self._load()
        # Whatever is wrong with a model's files, requests go on by their features.
        except Exception as error:
            logger.error("the line scorer's model cannot be used; lines are scored by their features: %s", error)
            self._why_not = Fallback.DOWN

    def _ask(self, evidence: Evidence, segments: Sequence[SegmentEvidence], allowance: _Allowance) -> Sequence[Asked]:
        """Ask the network about the results of which it has not been asked yet."""
        new = [segment for segment in segments if segment not in self._outcomes]
        processor = self._processor
        if processor is None or allowance.left_s <= 0:
            self._fell_back(len(new), self._why_not if processor is None else Fallback.DEADLINE)
            return ()
        asked: list[Asked] = []
        num_late = 0
        ends_s = time.perf_counter() + allowance.left_s
        try:
            for segment in new:
                started_s = time.perf_counter()
                if started_s + segment.num_chars / self._chars_per_s >= ends_s:
                    num_late += 1
                    self._chars_per_s *= 1 + _PACE_WEIGHT  # so that one slow moment does not end all scoring
                    continue
                asked.append(Asked(segment, processor.maker.windows(evidence, [segment])))
                if segment.num_chars >= _MIN_TIMED_CHARS:
                    seen = segment.num_chars / max(time.perf_counter() - started_s, 1e-6)
                    self._chars_per_s += _PACE_WEIGHT * (seen - self._chars_per_s)
            self._submit(asked, processor.version, allowance.left_s)
        except Exception:
            logger.exception("the line scorer could not be asked")
            self._fell_back(len(new) - num_late, Fallback.ERROR)
            asked = []
        self._fell_back(num_late, Fallback.DEADLINE)
        return asked

    def _submit(self, asked: Sequence[Asked], version: str, within_s: float) -> None:
        windows = [window for one in asked for window in one.windows]
        futures = iter(self._scores.submit(windows, within_s) if windows else ())
        for one in asked:
            one.futures = [next(futures) for _ in one.windows]
            one.keys = [key_of(window, version) for window in one.windows]
            one.kept = [None] * len(one.windows)

    def _collect(self, asked: Sequence[Asked], allowance: _Allowance) -> None:
        """Wait for the network's answers, and note what became of each result."""
        if not asked:
            return
        ends_s = time.perf_counter() + max(0.0, allowance.left_s)
        try:
            self._look_up(asked, ends_s)
            wait([future for one in asked for future in one.waits_for], max(0.0, ends_s - time.perf_counter()))
            for one in asked:
                self._settle(one)
        except Exception:
            logger.exception("the line scorer's answers could not be used")
            self._fell_back(sum(one.segment not in self._outcomes for one in asked), Fallback.ERROR)

    def _look_up(self, asked: Sequence[Asked], ends_s: float) -> None:
        if self._cache is None:
            return
        found = self._cache.get_many([key for one in asked for key in one.keys])
        try:
            records = iter(found.result(max(0.0, ends_s - time.perf_counter())))
        except Exception as error:  # the store is lost or slow; its own breaker says so
            logger.debug("no scores from the state store: %s", error)
            found.cancel()
            return
        for one in asked:
            for index, window in enumerate(one.windows):
                if (record := next(records)) is not None:
                    one.kept[index] = decode(record, len(window.line_ends))

    def _settle(self, asked: Asked) -> None:
        """Note what became of a result: scored where all of its windows are."""
        is_kept = all(asked.kept)
        outcomes, reason = asked.outcomes()
        if reason is not None:
            # Also of the windows that were scored: all of a result is decided one way, whoever decides it again.
            outcomes = [Outcome(None)] * len(outcomes)
            asked.cancel()
            self._fell_back(1, reason)
            logits = None
        else:
            if self._watch is not None:
                self._watch.scored(1, len(outcomes), is_kept=is_kept)
            logits = np.concatenate([outcome.logits for outcome in outcomes if outcome.logits is not None])
        self._outcomes[asked.segment] = Outcome(logits)
        if self._cache is not None and not is_kept:
            new = zip(asked.keys, outcomes, asked.kept, strict=True)
            self._cache.put_new({key: encode(outcome) for key, outcome, kept in new if kept is None})

    def _fell_back(self, num_results: int, reason: Fallback) -> None:
        if self._watch is not None and num_results:
            self._watch.fell_back(num_results, reason)


class _TurnScorer:
    """The scorer in one request (see `Scorer`)."""

    def __init__(self, scorer: NeuralScorer, allowance: _Allowance) -> None:
        self._scorer = scorer
        self._allowance = allowance

    def for_turn(self) -> _TurnScorer:
        """See `Scorer`."""
        return self

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        """See `Scorer`."""
        return self._scorer.score_within(evidence, segments, moment, self._allowance)
