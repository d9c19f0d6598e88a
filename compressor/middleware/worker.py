"""One event loop in a thread of its own, on which every in-process compressor runs.

Frameworks call from threads, and from loops that come and go; a compressor's memory and its store's connections want
one loop for good.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class _Worker:
    """The loop, once it is needed. Several threads may be the first to need it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Be as in a new process."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="sluice-middleware", daemon=True).start()
            return self._loop


_worker = _Worker()


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the loop; the thread is started by the first one, and goes with the process."""
    return asyncio.run_coroutine_threadsafe(work, _worker.loop())


if hasattr(os, "register_at_fork"):
    # A child has no thread but the one that forked, and what another one had locked stays locked there.
    os.register_at_fork(after_in_child=_worker.forget)
