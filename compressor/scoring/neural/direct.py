"""A model that is asked and answers at once: for tests, and for evaluation, where nobody waits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from sluice.compressor.scoring.neural.types import Floats, LineModel, Window


class Direct:
    """Scores windows where it is asked (see `LineScores`).

    Args:
        model: already loaded.
    """

    def __init__(self, model: LineModel) -> None:
        self._model = model

    def start(self) -> None:
        """See `LineScores`."""

    def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
        """See `LineScores`; takes as long as it takes."""
        futures: list[Future[Floats]] = []
        for logits in self._model.logits(windows):
            futures.append(Future())
            futures[-1].set_result(logits)
        return futures

    async def aclose(self) -> None:
        """See `LineScores`."""
