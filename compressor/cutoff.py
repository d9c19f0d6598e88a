"""The moment after which nothing that a thread still decides counts: a thread cannot be called back.

Either a decision is taken in before the moment, and is forwarded, or its thread is told that it came too late, and goes
on from what is forwarded instead. So that thread and request never disagree on what went out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Cutoff:
    """A moment that one thread chooses and another asks for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has_come = False

    @property
    def has_come(self) -> bool:
        """Whether nothing counts any more."""
        return self._has_come

    def take(self, decision: Callable[[], None]) -> bool:
        """Run `decision`, which writes something down, unless the moment has come; whether it was run."""
        with self._lock:
            if not self._has_come:
                decision()
            return not self._has_come

    def come(self, look: Callable[[], T]) -> T:
        """Let it come, and look at what was written down until then."""
        with self._lock:
            self._has_come = True
            return look()
