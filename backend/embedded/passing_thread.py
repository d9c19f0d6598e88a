"""Work that must leave no OpenMP threads behind.

Each thread that computes keeps OpenMP workers of its own until it ends. Once all threads' workers are more than the
cores, GNU's OpenMP puts them to sleep after every product instead of letting them spin (libgomp's
`gomp_throttled_spin_count_var`), even if all but one thread are idle. A step of the engine is hundreds of small
products and takes two to four times as long then: its thread must be the only one that has workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

PASSING = "sluice-passing"
"""The thread's name."""


def in_passing_thread(work: Callable[[], T]) -> T:
    """Do `work` in a thread that has ended when this returns, and its workers with it. Raises what `work` raises."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A daemon: who interrupts a long load does not wait for its end.
    thread = threading.Thread(target=run, name=PASSING, daemon=True)
    thread.start()
    result = future.result()
    thread.join()
    return result
