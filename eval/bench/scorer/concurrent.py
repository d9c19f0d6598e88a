"""What scoring adds to requests that come at once: many threads, one batcher, the deadline."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass

import numpy as np

from sluice.compressor.scoring.neural.batcher import Batcher
from sluice.compressor.scoring.neural.scores import LineScores, NotScoredError
from sluice.compressor.scoring.neural.types import LineModel
from sluice.eval.bench.scorer.shapes import random_window

_SIZES = (120, 240, 240, 480, 480)
"""Tokens of the windows that requests ask for."""


@dataclass(frozen=True, slots=True)
class Added:
    """What requests waited for."""

    seconds: Sequence[float]
    """Of each request, ascending."""
    outcomes: Counter[str]
    """Of their windows: scored, or why not."""

    def percentile_ms(self, percent: float) -> float:
        """A request's wait, in milliseconds."""
        return 1000 * float(np.percentile(self.seconds, percent))

    @property
    def share_scored(self) -> float:
        """Of the windows."""
        return self.outcomes["scored"] / max(1, sum(self.outcomes.values()))


def started(model: LineModel) -> Batcher:
    """A batcher that is ready."""
    batcher = Batcher(lambda: model)
    batcher.start()
    while batcher.model is None and not batcher.has_failed:
        time.sleep(0.01)
    return batcher


def measure(
    scores: LineScores,
    *,
    num_at_once: int = 64,
    num_each: int = 20,
    pause_s: float = 0.0,
    deadline_s: float = 0.03,
    max_window_tokens: int = 512,
) -> Added:
    """Have so many callers ask again and again.

    Args:
        scores: ready.
        num_at_once: callers, a thread each.
        num_each: requests of each.
        pause_s: mean time between a caller's requests, in seconds.
        deadline_s: of each request.
        max_window_tokens: longer windows are not asked for.
    """
    seconds: list[float] = []
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def call(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(num_each):
            if pause_s:
                time.sleep(rng.exponential(pause_s))
            sizes = rng.choice(_SIZES, size=rng.integers(1, 4))
            windows = [random_window(rng, min(int(size), max_window_tokens)) for size in sizes]
            started_s = time.perf_counter()
            futures = scores.submit(windows, deadline_s)
            wait(futures, deadline_s)
            took_s = time.perf_counter() - started_s
            found: list[str] = []
            for future in futures:
                if not future.done():
                    future.cancel()
                    found.append("deadline")
                    continue
                error = future.exception()
                found.append(error.reason.value if isinstance(error, NotScoredError) else "scored")
            with lock:
                seconds.append(took_s)
                outcomes.update(found)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(num_at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Added(sorted(seconds), outcomes)
