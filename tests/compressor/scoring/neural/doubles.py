"""Models that need no torch, and a processor that needs no base."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.forest import Forest
from sluice.compressor.scoring.neural.combine import COLUMNS, LOGIT_FEATURES, Combination
from sluice.compressor.scoring.neural.processor import Processor
from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, LineModel, Window
from sluice.compressor.scoring.neural.windows import WindowMaker, WindowShape

SHAPE = WindowShape(
    max_tokens=160, task=12, user=8, history=16, call=8, line=24, overlap=8,
    begin=(1,), end_of_context=(2,), end_of_line=(3,),
)  # fmt: skip


class Bytes:
    """One token for each byte."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[byte + 10 for byte in text.encode("utf-8", "surrogatepass")] for text in texts]


def processor(version: str = "7") -> Processor:
    """Chances by the logits alone: what the network wants is wanted, what it does not want is not."""
    every = 0xFFFFFFFF
    columns = [COLUMNS.index(LOGIT_FEATURES[0]), COLUMNS.index(LOGIT_FEATURES[4])]
    forest = Forest(
        heads=HEADS,
        features=COLUMNS,
        head_of_tree=np.array([0, 1]),
        feature=np.array([columns]),
        threshold=np.zeros((1, 2), dtype=np.float32),
        clears=np.full((1, 2), every & ~1, dtype=np.uint32),
        leaf=np.array([[-9, 9], [-9, 9]], dtype=np.float32),
    )
    return Processor(version, WindowMaker(Bytes(), SHAPE), Combination(forest))


class Coins:
    """A model that wants some lines and not others, by what the window holds alone (see `LineModel`)."""

    name, version = "coins", "7"
    max_window_tokens = SHAPE.max_tokens

    def __init__(self) -> None:
        self.batches: list[list[Window]] = []
        self.gate: threading.Event | None = None
        """Where there is one, nothing is scored until it is set."""
        self.error: Exception | None = None

    def logits(self, windows: Sequence[Window]) -> list[Floats]:
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        self.batches.append([*windows])
        return [wanted(window) for window in windows]


def wanted(window: Window) -> Floats:
    """The logits that `Coins` gives."""
    draw = np.random.default_rng(int.from_bytes(window.key[:8], "little"))
    return draw.normal(0, 3, (len(window.line_ends), len(HEADS))).astype(np.float32)


class Direct:
    """Scores windows at once, where it is asked (see `LineScores`)."""

    def __init__(self, model: LineModel) -> None:
        self._model = model

    def start(self) -> None:
        pass

    def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
        futures: list[Future[Floats]] = []
        for logits in self._model.logits(windows):
            futures.append(Future())
            futures[-1].set_result(logits)
        return futures

    async def aclose(self) -> None:
        pass


class Moody:
    """Scores or not, as it pleases (see `LineScores`)."""

    def __init__(self, seed: int, share: float = 0.5) -> None:
        self._draw = random.Random(seed)
        self._share = share
        self.num_asked = 0

    def start(self) -> None:
        pass

    def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
        self.num_asked += len(windows)
        futures: list[Future[Floats]] = [Future() for _ in windows]
        for future, window in zip(futures, windows, strict=True):
            mood = self._draw.random()
            if mood < self._share:
                future.set_result(wanted(window))
            elif mood < 0.9:
                future.set_exception(NotScoredError(self._draw.choice(list(Fallback))))
            # else nobody ever answers
        return futures

    async def aclose(self) -> None:
        pass


class Watch:
    """Counts what it is told (see `ScorerWatch`)."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.waits_s: list[float] = []

    def scored(self, num_results: int, num_windows: int, *, is_kept: bool) -> None:
        self.counts["kept" if is_kept else "scored"] += num_results

    def fell_back(self, num_results: int, reason: Fallback) -> None:
        self.counts[reason.value] += num_results

    def waited(self, seconds: float) -> None:
        self.waits_s.append(seconds)
