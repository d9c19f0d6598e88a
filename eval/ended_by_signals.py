"""Ends a task in order where its process is asked to end, so that what it has started ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have Ctrl-C and the signals that ask a process to end cancel the current task: the first one, and no more."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def end() -> None:
        if not task.cancelling():
            task.cancel()

    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C alone, as asyncio handles it
        for number in wanted:
            loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in wanted:
                loop.remove_signal_handler(number)
