"""What figures were taken on, in a few words: they mean little without it."""

from __future__ import annotations

import os
import platform


def hardware() -> str:
    """Cores that this process may use, their model, the system and Python's version."""
    model = ""
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        model = platform.processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} × {model or platform.machine()}, {platform.system()}, Python {platform.python_version()}"
