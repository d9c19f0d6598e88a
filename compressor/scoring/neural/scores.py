"""What scores windows, as the scorer sees it: somebody who is asked, and who answers in time or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from sluice.compressor.errors import CompressorError

if TYPE_CHECKING:  # counters need the reasons, where there is no numpy
    from sluice.compressor.scoring.neural.types import Floats, Window


class Fallback(StrEnum):
    """Why lines were scored by their features alone."""

    LOADING = "loading"
    """The model is not ready yet."""
    BUSY = "busy"
    """Others were first, and it would not have been done in time."""
    DEADLINE = "deadline"
    """It was not done in time."""
    DOWN = "down"
    """There is no model: it cannot be loaded, or whoever has it does not answer."""
    ERROR = "error"
    """The model failed on it, or answered what cannot be used."""
    EARLIER = "earlier"
    """These very lines were scored by their features before, and what was decided then is to be decided again."""


class NotScoredError(CompressorError):
    """A window was not scored."""

    def __init__(self, reason: Fallback, detail: str = "") -> None:
        super().__init__(f"not scored: {reason}{f' ({detail})' if detail else ''}")
        self.reason = reason


class LineScores(Protocol):
    """Scores windows behind its callers' backs. Its methods return at once."""

    def start(self) -> None:
        """Begin to load or to connect. Called once, before anything else, where the caller's event loop runs."""
        ...

    def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
        """Ask for the scores of a request's windows, from any thread; whoever no longer wants one cancels its future.

        Args:
            windows: of one request.
            within_s: after so many seconds nobody will want them.

        Returns:
            For each window its logits, or `NotScoredError`.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what is held. What is still asked for is answered with `NotScoredError`."""
        ...
