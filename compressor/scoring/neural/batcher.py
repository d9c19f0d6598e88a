"""A model in this process, on a thread of its own: it loads it, and scores what all requests ask for in batches.

Memory: the model's weights; activations of one batch (`max_batch_tokens`); at most `max_waiting_tokens` that wait.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

import numpy as np

from sluice.compressor.scoring.neural.batching import Pace, Waiting, fitted, num_in_time, plan
from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, LineModel, Window

logger = logging.getLogger(__name__)

_MAX_STALL_S = 1.0
"""A batch that takes so much longer than it should is taken for one that never ends: nobody waits behind it."""
_SLOW_S = 0.05
"""A model that takes longer for 64 tokens is measured on few."""
_NUM_IDS = 250
"""Every tokenizer has more tokens."""
_NUM_RUNS = 3
"""The first run of a shape compiles and allocates, the fastest of the others counts; one alone where they are slow."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is computed at once, and how much may wait."""

    max_batch_s: float = 0.01
    """How long a batch may take, in seconds, where the smallest takes less than half of it: for so long whoever comes
    next has to wait at the most."""
    max_batch_tokens: int = 32_768
    """Bound on a batch's tokens, and so on the memory of its activations."""
    max_waiting_tokens: int = 1 << 20
    """Bound on the tokens that wait, 4 bytes each."""


class _Job:
    __slots__ = ("future", "waiting", "window")

    def __init__(self, window: Window, expires_at_s: float) -> None:
        self.window = window
        self.waiting = Waiting(len(window.token_ids), expires_at_s)
        self.future: Future[Floats] = Future()

    def fail(self, reason: Fallback) -> None:
        _settle(self.future, NotScoredError(reason))


class Batcher:
    """Scores windows with a model in this process (see `LineScores`).

    Args:
        load: loads the model, on the thread that will use it; what it raises is logged, and nothing is scored then.
        limits: see `BatchLimits`.
        on_failed: called on that thread with what `load` raised.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        load: Callable[[], LineModel],
        *,
        limits: BatchLimits | None = None,
        on_failed: Callable[[Exception], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._on_failed = on_failed
        self._limits = limits or BatchLimits()
        self._clock = clock
        self._jobs: list[_Job] = []
        self._num_waiting = 0
        self._num_running = 0
        self._due_at_s = float("inf")
        self._changed = threading.Condition()
        self._model: LineModel | None = None
        self._why_not = Fallback.LOADING
        self._start_pace = self._pace = Pace(0.0, 0.0)
        self._ended_at_s = 0.0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="sluice-scorer", daemon=True)

    @property
    def model(self) -> LineModel | None:
        """The model, once it is ready."""
        return self._model

    @property
    def has_failed(self) -> bool:
        """Whether nothing will be scored: the model could not be loaded, or is no longer held."""
        return self._why_not is Fallback.DOWN

    @property
    def pace(self) -> Pace:
        """How fast it is, as measured at the start and by the last batches."""
        if self._num_running:
            return self._pace
        return self._pace.recovered(self._start_pace, self._clock() - self._ended_at_s)

    def start(self) -> None:
        """See `LineScores`."""
        self._thread.start()

    def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
        """See `LineScores`."""
        expires_at_s = self._clock() + within_s
        jobs = [_Job(window, expires_at_s) for window in windows]
        with self._changed:
            if self._model is None or self._is_closed:
                num, reason = 0, self._why_not
            else:
                num = 0 if self._clock() > self._due_at_s else self._num_admitted(jobs, within_s)
                reason = Fallback.BUSY
                self._jobs += jobs[:num]
                self._num_waiting += sum(job.waiting.num_tokens for job in jobs[:num])
                self._changed.notify()
        for job in jobs[num:]:
            job.fail(reason)
        return [job.future for job in jobs]

    async def aclose(self) -> None:
        """See `LineScores`."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """As `aclose`, without an event loop. A model that is still loading is left to the end of the process."""
        with self._changed:
            self._is_closed = True
            self._why_not = Fallback.DOWN
            self._changed.notify()
        if self._model is not None:
            self._thread.join()

    def _num_admitted(self, jobs: Sequence[_Job], within_s: float) -> int:
        sizes = [job.waiting.num_tokens for job in jobs]
        num = num_in_time(sizes, num_ahead=self._num_waiting + self._num_running, pace=self.pace, within_s=within_s)
        left = self._limits.max_waiting_tokens - self._num_waiting
        for index, size in enumerate(sizes[:num]):
            left -= size
            if left < 0:
                return index
        return num

    def _run(self) -> None:
        try:
            model = self._load()
            self._start_pace = self._pace = measure_pace(model, self._limits, time.perf_counter)
        # Whatever is wrong with a model's files or its libraries, requests go on by their features.
        except Exception as error:
            logger.exception("the line scorer's model cannot be used; lines are scored by their features: %s", error)
            with self._changed:
                self._why_not = Fallback.DOWN
            self._on_failed(error)
            return
        logger.info(
            "line scorer %s %s is ready: %.0f tokens/s",
            model.name,
            model.version,
            1 / max(self._pace.per_token_s, 1e-9),
        )
        with self._changed:
            self._model = model
        while (batch := self._next_batch()) is not None:
            self._score(model, batch)

    def _next_batch(self) -> list[_Job] | None:
        """Wait for windows and choose; None once closed."""
        with self._changed:
            self._num_running, self._due_at_s, self._ended_at_s = 0, float("inf"), self._clock()
            while not self._jobs and not self._is_closed:
                self._changed.wait()
            jobs = self._jobs
            if self._is_closed:
                for job in jobs:
                    job.fail(Fallback.DOWN)
                return None
            self._pace = self.pace
            max_tokens = min(self._limits.max_batch_tokens, self._pace.tokens_at_once(self._limits.max_batch_s))
            chosen = plan([job.waiting for job in jobs], now_s=self._clock(), pace=self._pace, max_tokens=max_tokens)
            gone = {*chosen.batch, *chosen.late}
            self._jobs = [job for index, job in enumerate(jobs) if index not in gone]
            # Who has been cancelled since is not scored, either.
            batch = [jobs[index] for index in chosen.batch if jobs[index].future.set_running_or_notify_cancel()]
            self._num_waiting = sum(job.waiting.num_tokens for job in self._jobs)
            self._num_running = sum(job.waiting.num_tokens for job in batch)
            self._due_at_s = self._clock() + self._pace.seconds(self._num_running) + _MAX_STALL_S
        for index in chosen.late:
            jobs[index].fail(Fallback.DEADLINE)
        return batch

    def _score(self, model: LineModel, batch: Sequence[_Job]) -> None:
        if not batch:
            return
        started_s = time.perf_counter()
        try:
            found = zip(batch, model.logits([job.window for job in batch]), strict=True)
            num_tokens = sum(job.waiting.num_tokens for job in batch)
            self._pace = self._pace.adjusted(num_tokens, time.perf_counter() - started_s)
            for job, logits in found:
                _settle(job.future, logits)
        except Exception:  # one batch failed: out of memory, perhaps; the next may not
            logger.exception("the line scorer failed on %d windows", len(batch))
            for job in batch:
                job.fail(Fallback.ERROR)


def measure_pace(model: LineModel, limits: BatchLimits, timer: Callable[[], float]) -> Pace:
    """Run a model on a small and on a large batch, which also makes it ready for both; see `Pace`."""
    rng = np.random.default_rng(0)
    longest = model.max_window_tokens
    small = [_window(rng, min(64, longest))]
    first = len(small[0].token_ids), _seconds(model, small, timer)
    if first[1] > _SLOW_S:  # a CPU, perhaps: what a longer window tells is not worth the wait
        num_tokens = min(256, longest)
        return fitted(first, (num_tokens, _seconds(model, [_window(rng, num_tokens)], timer)))
    large = [_window(rng, longest)]
    # As many as a batch may hold, by a first guess that a single window overestimates.
    guess = fitted(first, (longest, _seconds(model, large, timer)))
    num_tokens = min(limits.max_batch_tokens, guess.tokens_within(4 * limits.max_batch_s))
    large += [_window(rng, longest) for _ in range(num_tokens // longest - 1)]
    # A GPU loads kernels when a size first asks for them: not while requests wait.
    num_windows = 2
    while num_windows < len(large):
        model.logits(large[:num_windows])
        num_windows *= 2
    return fitted(first, (longest * len(large), _seconds(model, large, timer)))


def _window(rng: np.random.Generator, num_tokens: int) -> Window:
    """A window to measure with. No two begin alike: what windows share may be computed once."""
    line_ends = np.arange(min(15, num_tokens - 1), num_tokens, 16, dtype=np.int32)
    return Window(rng.integers(0, _NUM_IDS, num_tokens).astype(np.int32), line_ends, 0, 0, 0)


def _seconds(model: LineModel, windows: Sequence[Window], timer: Callable[[], float]) -> float:
    taken: list[float] = []
    while len(taken) < _NUM_RUNS and not any(seconds > _SLOW_S for seconds in taken[1:]):
        started_s = timer()
        model.logits(windows)
        taken.append(timer() - started_s)
    return min(taken[1:])


def _settle(future: Future[Floats], outcome: Floats | NotScoredError) -> None:
    """Answer a future, unless its owner has cancelled it."""
    try:
        if isinstance(outcome, NotScoredError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        pass
