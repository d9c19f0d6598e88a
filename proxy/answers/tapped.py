"""An answer whose body is shown to somebody as it is read. Knows nothing of what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

from sluice.proxy.answers.answers import SourcedAnswer
from sluice.proxy.meter.turn import Source


class Tapped:
    """See `SourcedAnswer`.

    Args:
        answer: its body not yet read.
        tap: shown each piece of the body. It must neither raise nor wait.
    """

    def __init__(self, answer: SourcedAnswer, tap: Callable[[bytes], None]) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.upstream = answer.upstream
        self.num_retries = answer.num_retries
        self.sluice_headers = answer.sluice_headers
        self.close = answer.close
        self._answer = answer
        self._tap = tap

    @property
    def source(self) -> Source:
        """See `SourcedAnswer`."""
        return self._answer.source

    async def read(self) -> bytes:
        """See `Answer`."""
        data = await self._answer.read()
        self._tap(data)
        return data
