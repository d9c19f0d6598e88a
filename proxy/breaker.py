"""A circuit breaker: after some failures in a row, nothing is tried until a while has passed. Knows no Redis."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Says whether a thing that has failed is worth another try.

    Args:
        max_failures: failures in a row that open it.
        retry_s: seconds from a failure until one attempt is let through again.
        clock: seconds, monotonic.
    """

    def __init__(
        self, *, max_failures: int = 2, retry_s: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_failures = max_failures
        self._retry_s = retry_s
        self._clock = clock
        self._num_failures = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last attempts failed."""
        return self._num_failures >= self._max_failures

    def admits(self) -> bool:
        """Whether to make an attempt now. While open, one caller in `retry_s` gets a yes."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._retry_s
        return True

    def succeeded(self) -> None:
        """Close it."""
        self._num_failures = 0

    def failed(self) -> None:
        """Count a failure."""
        self._num_failures += 1
        self._retry_at = self._clock() + self._retry_s
