from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from sluice.compressor.errors import StateError
from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.scoring import Moment
from sluice.compressor.scoring.feature_scorer import load_default
from sluice.compressor.scoring.neural.neural_scorer import NeuralScorer
from sluice.compressor.scoring.neural.processor import Processor
from sluice.compressor.scoring.neural.score_cache import ScoreCache
from sluice.compressor.scoring.neural.scores import Fallback, LineScores, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, Window
from sluice.compressor.scoring.neural.windows import WindowMaker
from tests.compressor.conversations import TASK, evidence_of, file_lines, read_file
from tests.compressor.scoring.neural.doubles import Coins, Direct, Watch, processor


def conversation(num_lines: int = 12) -> Evidence:
    messages = [TASK]
    for number, name in enumerate(("a", "b")):
        messages += read_file(str(number), f"{name}.py", file_lines(num_lines, name))
    return evidence_of(messages)


class Memory:
    """A cache that answers at once (see `ScoreCache`)."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> Future[list[bytes | None]]:
        found: Future[list[bytes | None]] = Future()
        found.set_result([self.records.get(key) for key in keys])
        return found

    def put_new(self, records: Mapping[bytes, bytes]) -> None:
        for key, record in records.items():
            self.records.setdefault(key, record)


class Never:
    """Answers nothing, or the same to all (see `LineScores`)."""

    def __init__(self, answer: Fallback | Floats | None = None) -> None:
        self.answer = answer
        self.futures: list[Future[Floats]] = []

    def start(self) -> None:
        pass

    def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
        futures: list[Future[Floats]] = [Future() for _ in windows]
        for future in futures:
            if isinstance(self.answer, Fallback):
                future.set_exception(NotScoredError(self.answer))
            elif self.answer is not None:
                future.set_result(self.answer)
        self.futures += futures
        return futures

    async def aclose(self) -> None:
        pass


def make(
    scores: LineScores, *, cache: ScoreCache | None = None, watch: Watch | None = None, deadline_s: float = 20.0
) -> NeuralScorer:
    scorer = NeuralScorer(load_default(), processor, scores, deadline_s=deadline_s, cache=cache, watch=watch)
    scorer.start()
    scorer._loader.join(20)
    return scorer


def by_features(evidence: Evidence, moment: Moment = Moment.ARRIVAL) -> list[Sequence[float]]:
    return load_default().score(evidence, evidence.segments, moment)


def test_lines_are_scored_by_the_network_where_it_answers() -> None:
    watch, model, evidence = Watch(), Coins(), conversation()
    scores = make(Direct(model), watch=watch).score(evidence, evidence.segments, Moment.ARRIVAL)
    assert scores != by_features(evidence)
    assert [len(one) for one in scores] == [12, 12]
    assert {score > 0.5 for one in scores for score in one} == {True, False}
    assert watch.counts == {"scored": 2}
    assert sum(len(window.line_ends) for batch in model.batches for window in batch) == 24


def test_each_line_gets_its_own_logits() -> None:
    evidence = conversation()
    scorer = make(Direct(Coins()))
    both = scorer.score(evidence, evidence.segments, Moment.ARRIVAL)
    again = conversation()
    alone = [scorer.score(again, [segment], Moment.ARRIVAL)[0] for segment in again.segments]
    assert both == alone


@pytest.mark.parametrize("reason", [Fallback.LOADING, Fallback.BUSY, Fallback.DOWN, Fallback.ERROR])
def test_by_their_features_where_it_does_not(reason: Fallback) -> None:
    watch, evidence = Watch(), conversation()
    scorer = make(Never(reason), watch=watch)
    assert scorer.score(evidence, evidence.segments, Moment.ARRIVAL) == by_features(evidence)
    assert watch.counts == {reason.value: 2}


def test_past_the_deadline_a_request_goes_on_and_says_that_nobody_waits() -> None:
    watch, scores, evidence = Watch(), Never(), conversation()
    turn = make(scores, watch=watch, deadline_s=0.03).for_turn()
    started_s = time.perf_counter()
    assert turn.score(evidence, evidence.segments[:1], Moment.ARRIVAL) == by_features(evidence)[:1]
    assert turn.score(evidence, evidence.segments[1:], Moment.ARRIVAL) == by_features(evidence)[1:]
    assert time.perf_counter() - started_s >= 0.02
    # The request's second result has no time left: the network is not asked about it.
    assert all(future.cancelled() for future in scores.futures)
    assert watch.counts == {"deadline": 2}
    assert sum(watch.waits_s) >= 0.03


def test_the_deadline_is_a_requests_own() -> None:
    evidence = conversation()
    scores = Never()
    scorer = make(scores, deadline_s=0.02)
    for segment in evidence.segments:
        scorer.for_turn().score(evidence, [segment], Moment.ARRIVAL)
    assert len(scores.futures) >= 2


def test_a_result_whose_windows_alone_would_take_too_long_is_not_begun() -> None:
    watch, model = Watch(), Coins()
    messages = [
        TASK,
        *read_file("1", "a.py", file_lines(9_000, "a")),
        *read_file("2", "b.py", file_lines(3, "b")),
    ]
    evidence = evidence_of(messages)
    scorer = make(Direct(model), watch=watch, deadline_s=0.1)
    scorer.score(evidence, evidence.segments, Moment.ARRIVAL)
    assert watch.counts["deadline"] >= 1
    assert sum(len(window.line_ends) for batch in model.batches for window in batch) <= 3


@pytest.mark.parametrize(
    "logits", [np.zeros((3, 2), np.float32), np.full((12, 2), np.nan, np.float32), np.zeros(0, np.float32)]
)
def test_an_answer_that_cannot_be_used_is_none(logits: Floats) -> None:
    watch, evidence = Watch(), conversation(5)
    scorer = make(Never(logits), watch=watch)
    assert scorer.score(evidence, evidence.segments, Moment.ARRIVAL) == by_features(evidence)
    assert watch.counts == {"error": 2}


def test_whatever_breaks_the_features_are_there(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Never):
        def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
            raise OSError("no sockets left")

    watch, evidence = Watch(), conversation()
    scorer = make(Broken(), watch=watch)
    assert scorer.score(evidence, evidence.segments, Moment.ARRIVAL) == by_features(evidence)
    assert watch.counts == {"error": 2}
    assert "no sockets left" in caplog.text


def test_a_result_that_cannot_be_read_leaves_all_of_the_request_to_the_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, watch, evidence = Coins(), Watch(), conversation()
    scorer = make(Direct(model), watch=watch)
    make_windows = WindowMaker.windows

    def broken(self: WindowMaker, evidence: Evidence, segments: Sequence[SegmentEvidence]) -> list[Window]:
        if segments[0] is evidence.segments[1]:
            raise ValueError("a tokenizer's fault")
        return make_windows(self, evidence, segments)

    monkeypatch.setattr(WindowMaker, "windows", broken)
    assert scorer.score(evidence, evidence.segments, Moment.ARRIVAL) == by_features(evidence)
    assert model.batches == []
    assert watch.counts == {"error": 2}, "both are counted, the one that could be read, too"


def test_a_rewrite_of_the_history_asks_nothing_again() -> None:
    model, evidence = Coins(), conversation()
    scorer = make(Direct(model))
    scorer.score(evidence, evidence.segments, Moment.ARRIVAL)
    num_batches = len(model.batches)
    assert scorer.score(evidence, evidence.segments, Moment.EPOCH) != by_features(evidence, Moment.EPOCH)
    assert len(model.batches) == num_batches


def test_what_was_decided_is_decided_again_elsewhere() -> None:
    cache, watch, evidence = Memory(), Watch(), conversation()
    first = make(Direct(Coins()), cache=cache).score(evidence, evidence.segments, Moment.ARRIVAL)
    # Another process, whose network is lost.
    other = conversation()
    assert make(Never(), cache=cache, watch=watch).score(other, other.segments, Moment.ARRIVAL) == first
    assert watch.counts == {"kept": 2}


def test_what_was_decided_by_features_is_decided_by_features_again() -> None:
    cache, watch, evidence = Memory(), Watch(), conversation()
    first = make(Never(Fallback.BUSY), cache=cache).score(evidence, evidence.segments, Moment.ARRIVAL)
    assert cache.records
    other = conversation()
    again = make(Direct(Coins()), cache=cache, watch=watch).score(other, other.segments, Moment.ARRIVAL)
    assert again == first == by_features(evidence)
    assert watch.counts == {"earlier": 2}


def test_a_result_of_which_a_part_was_scored_is_decided_one_way() -> None:
    class Half(Coins):
        def logits(self, windows: Sequence[Window]) -> list[Floats]:
            found = super().logits(windows)
            found[-1] = np.full_like(found[-1], np.inf)
            return found

    cache, evidence = Memory(), conversation(60)
    scorer = make(Direct(Half()), cache=cache)
    (scores,) = scorer.score(evidence, evidence.segments[:1], Moment.ARRIVAL)
    assert [scores] == load_default().score(evidence, evidence.segments[:1], Moment.ARRIVAL)
    other = conversation(60)
    assert make(Direct(Coins()), cache=cache).score(other, other.segments[:1], Moment.ARRIVAL) == [scores]


def test_a_cache_that_is_lost_or_slow_costs_no_more_than_the_deadline() -> None:
    class Lost(Memory):
        def get_many(self, keys: Sequence[bytes]) -> Future[list[bytes | None]]:
            found: Future[list[bytes | None]] = Future()
            found.set_exception(StateError("gone"))
            return found

    class Slow(Memory):
        def get_many(self, keys: Sequence[bytes]) -> Future[list[bytes | None]]:
            return Future()

    reference = conversation()
    expected = make(Direct(Coins())).score(reference, reference.segments, Moment.ARRIVAL)
    for cache, deadline_s in ((Lost(), 20.0), (Slow(), 2.0)):
        evidence = conversation()
        scores = make(Direct(Coins()), cache=cache, deadline_s=deadline_s).score(
            evidence, evidence.segments, Moment.ARRIVAL
        )
        assert scores == expected


def test_while_it_loads_and_where_it_cannot_be_read_features_score(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def load() -> Processor:
        assert gate.wait(20)
        raise OSError("no such folder")

    watch, evidence = Watch(), conversation()
    scorer = NeuralScorer(load_default(), load, Direct(Coins()), watch=watch)
    scorer.start()
    assert scorer.score(evidence, evidence.segments, Moment.ARRIVAL) == by_features(evidence)
    assert watch.counts == {"loading": 2}
    gate.set()
    scorer._loader.join(20)
    assert scorer.score(evidence, evidence.segments, Moment.ARRIVAL) == by_features(evidence)
    assert watch.counts == {"loading": 2, "down": 2}
    assert "no such folder" in caplog.text


def test_nothing_to_score_is_fine() -> None:
    assert make(Direct(Coins())).score(conversation(), [], Moment.ARRIVAL) == []
