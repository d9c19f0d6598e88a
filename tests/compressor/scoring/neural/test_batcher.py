from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait

import numpy as np
import pytest

from sluice.compressor.scoring.neural.batcher import Batcher, BatchLimits
from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, Window
from tests.compressor.scoring.neural.doubles import Coins, wanted

LONG_S = 20.0


def window(number: int, num_tokens: int = 100) -> Window:
    rng = np.random.default_rng(number)
    return Window(rng.integers(0, 99, num_tokens).astype(np.int32), np.array([50, num_tokens - 1], np.int32), 40, 0, 0)


@pytest.fixture
def started() -> Iterator[Callable[..., tuple[Batcher, Coins]]]:
    batchers: list[Batcher] = []

    def start(limits: BatchLimits | None = None) -> tuple[Batcher, Coins]:
        model = Coins()
        batcher = Batcher(lambda: model, limits=limits)
        batchers.append(batcher)
        batcher.start()
        until(lambda: batcher.model is not None)
        model.batches.clear()
        return batcher, model

    yield start
    for batcher in batchers:
        if batcher.model is not None and isinstance(batcher.model, Coins) and batcher.model.gate is not None:
            batcher.model.gate.set()
        batcher.close()


def until(is_so: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < ends_s
        time.sleep(0.002)


def why(future: Future[Floats]) -> Fallback:
    error = future.exception(LONG_S)
    assert isinstance(error, NotScoredError)
    return error.reason


def test_windows_of_many_threads_are_scored_each_with_its_own(started: Callable[..., tuple[Batcher, Coins]]) -> None:
    batcher, _ = started()
    failures: list[str] = []

    def call(number: int) -> None:
        windows = [window(100 * number + i, 60 + 10 * i) for i in range(5)]
        for one, future in zip(windows, batcher.submit(windows, LONG_S), strict=True):
            if not np.array_equal(future.result(LONG_S), wanted(one)):
                failures.append(f"{number}")

    threads = [threading.Thread(target=call, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_who_comes_while_a_batch_runs_goes_together(started: Callable[..., tuple[Batcher, Coins]]) -> None:
    batcher, model = started(BatchLimits(max_batch_s=10.0))
    model.gate = threading.Event()
    first = batcher.submit([window(0)], LONG_S)
    until(lambda: first[0].running())
    others = [future for number in range(1, 9) for future in batcher.submit([window(number)], LONG_S)]
    model.gate.set()
    wait([*first, *others], LONG_S)
    assert [len(batch) for batch in model.batches] == [1, 8]


def test_nobody_waits_for_a_model_that_loads() -> None:
    loaded = threading.Event()
    model = Coins()

    def load() -> Coins:
        assert loaded.wait(LONG_S)
        return model

    batcher = Batcher(load)
    batcher.start()
    (future,) = batcher.submit([window(0)], LONG_S)
    assert why(future) is Fallback.LOADING
    loaded.set()
    until(lambda: batcher.model is not None)
    (future,) = batcher.submit([window(0)], LONG_S)
    assert np.array_equal(future.result(LONG_S), wanted(window(0)))
    batcher.close()


@pytest.mark.parametrize("error", [ImportError("no torch"), OSError("broken file"), RuntimeError("no memory")])
def test_a_model_that_cannot_be_loaded_is_down_and_says_why(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Coins:
        raise error

    batcher = Batcher(load)
    batcher.start()
    until(lambda: batcher.has_failed)
    (future,) = batcher.submit([window(0)], LONG_S)
    assert why(future) is Fallback.DOWN
    assert str(error) in caplog.text
    batcher.close()


def test_a_batch_that_fails_costs_itself_alone(
    started: Callable[..., tuple[Batcher, Coins]], caplog: pytest.LogCaptureFixture
) -> None:
    batcher, model = started()
    model.error = RuntimeError("out of memory")
    (future,) = batcher.submit([window(0)], LONG_S)
    assert why(future) is Fallback.ERROR
    assert "out of memory" in caplog.text
    model.error = None
    (future,) = batcher.submit([window(0)], LONG_S)
    assert np.array_equal(future.result(LONG_S), wanted(window(0)))


def test_a_model_that_answers_too_little_fails_on_that_batch_alone(
    started: Callable[..., tuple[Batcher, Coins]], monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, model = started()
    with monkeypatch.context() as patch:
        patch.setattr(model, "logits", lambda windows: [])
        (future,) = batcher.submit([window(0)], LONG_S)
        assert why(future) is Fallback.ERROR
    (future,) = batcher.submit([window(0)], LONG_S)
    assert np.array_equal(future.result(LONG_S), wanted(window(0)))


def test_what_nobody_waits_for_any_more_is_not_scored(started: Callable[..., tuple[Batcher, Coins]]) -> None:
    batcher, model = started(BatchLimits(max_batch_s=10.0))
    model.gate = threading.Event()
    (running,) = batcher.submit([window(0)], LONG_S)
    until(running.running)
    (late,) = batcher.submit([window(1)], 0.05)
    (cancelled, wanted_still) = batcher.submit([window(2), window(3)], LONG_S)
    cancelled.cancel()
    time.sleep(0.06)
    model.gate.set()
    assert why(late) is Fallback.DEADLINE
    assert np.array_equal(wanted_still.result(LONG_S), wanted(window(3)))
    assert [one.key for batch in model.batches for one in batch] == [window(0).key, window(3).key]


def test_what_cannot_be_done_in_time_is_refused_at_once(started: Callable[..., tuple[Batcher, Coins]]) -> None:
    batcher, model = started(BatchLimits(max_waiting_tokens=250))
    assert why(batcher.submit([window(0)], 0.0)[0]) is Fallback.BUSY
    model.gate = threading.Event()
    (running,) = batcher.submit([window(0)], LONG_S)
    until(running.running)
    futures = batcher.submit([window(number) for number in range(1, 4)], LONG_S)
    assert why(futures[2]) is Fallback.BUSY  # the first two fill what may wait
    model.gate.set()
    assert not wait(futures[:2], LONG_S).not_done


def test_nobody_waits_behind_a_batch_that_never_ends() -> None:
    model, now_s = Coins(), [0.0]
    batcher = Batcher(lambda: model, clock=lambda: now_s[0])
    batcher.start()
    until(lambda: batcher.model is not None)
    model.gate = threading.Event()
    (stuck,) = batcher.submit([window(0)], LONG_S)
    until(stuck.running)
    now_s[0] += 10
    assert why(batcher.submit([window(1)], LONG_S)[0]) is Fallback.BUSY
    model.gate.set()
    assert stuck.result(LONG_S) is not None
    now_s[0] += 1_000  # idle for long, and well again
    until(lambda: batcher.submit([window(2)], LONG_S)[0].exception(LONG_S) is None)
    batcher.close()


def test_a_model_that_was_slow_once_is_asked_again() -> None:
    model, now_s = Coins(), [0.0]
    batcher = Batcher(lambda: model, clock=lambda: now_s[0])
    batcher.start()
    until(lambda: batcher.model is not None)
    quick_s = batcher.pace.seconds(100)
    model.gate = threading.Event()
    (slow,) = batcher.submit([window(0)], LONG_S)
    until(slow.running)
    time.sleep(max(0.3, 100 * quick_s))
    model.gate.set()
    assert slow.result(LONG_S) is not None
    within_s = 2 * quick_s
    until(lambda: why(batcher.submit([window(1)], within_s)[0]) is Fallback.BUSY)
    now_s[0] += 60
    assert np.array_equal(batcher.submit([window(1)], within_s)[0].result(LONG_S), wanted(window(1)))
    batcher.close()


def test_closing_answers_whoever_waits(started: Callable[..., tuple[Batcher, Coins]]) -> None:
    batcher, model = started(BatchLimits(max_batch_s=10.0))
    model.gate = threading.Event()
    (running,) = batcher.submit([window(0)], LONG_S)
    until(running.running)
    (left,) = batcher.submit([window(1)], LONG_S)
    threading.Timer(0.05, model.gate.set).start()
    batcher.close()
    assert why(left) is Fallback.DOWN
    assert why(batcher.submit([window(2)], LONG_S)[0]) is Fallback.DOWN
    assert running.done()
