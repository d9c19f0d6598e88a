"""A result that a network was asked about: its windows, who was asked, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLongError
from dataclasses import dataclass, field

import numpy as np

from sluice.compressor.evidence import SegmentEvidence
from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.score_cache import Outcome, rounded
from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, Window


@dataclass(slots=True)
class Asked:
    """One result."""

    segment: SegmentEvidence
    windows: Sequence[Window]
    """Those of its lines."""
    keys: Sequence[bytes] = ()
    """Under which the outcome of each window is kept."""
    futures: Sequence[Future[Floats]] = ()
    """The logits of each window, as they come."""
    kept: list[Outcome | None] = field(default_factory=list)
    """What the cache holds of each window."""

    @property
    def waits_for(self) -> list[Future[Floats]]:
        """Those futures whose windows were not scored before."""
        return [future for future, kept in zip(self.futures, self.kept, strict=True) if kept is None]

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        for future in self.futures:
            future.cancel()

    def outcomes(self) -> tuple[list[Outcome], Fallback | None]:
        """Each window's outcome by now, and why not all of them were scored; None where they were."""
        outcomes: list[Outcome] = []
        reason: Fallback | None = None
        for future, kept, window in zip(self.futures, self.kept, self.windows, strict=True):
            outcome = kept
            if outcome is None:
                try:
                    outcome = Outcome(rounded(_usable(future.result(0), window)))
                except NotScoredError as error:
                    outcome, reason = Outcome(None), reason or error.reason
                except (WaitedTooLongError, CancelledError):
                    outcome, reason = Outcome(None), reason or Fallback.DEADLINE
            elif outcome.logits is None:
                reason = Fallback.EARLIER
            outcomes.append(outcome)
        return outcomes, reason


def _usable(logits: Floats, window: Window) -> Floats:
    if logits.shape != (len(window.line_ends), len(HEADS)) or not np.isfinite(logits).all():
        raise NotScoredError(Fallback.ERROR, f"logits of shape {logits.shape}")
    return logits
