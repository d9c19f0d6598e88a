"""Has a process that was started by another end with it, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """Watch the process that started this one (by `multiprocessing`), and end as by SIGTERM once it is gone."""
    threading.Thread(target=_watch, name="sluice-parent", daemon=True).start()


def _watch() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
