"""Threads that compute and end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sluice.backend.embedded.passing_thread import in_passing_thread

_LOAD = """
import os, sys, time, torch
from pathlib import Path
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import load_engine

torch.set_num_threads(4)
num_before = len(os.listdir("/proc/self/task"))
engine = load_engine(Path(sys.argv[1]), EngineConfig(device="cpu"), frozenset())
ends_at_s = time.monotonic() + 5  # workers end a moment after their thread
while (num_more := len(os.listdir("/proc/self/task")) - num_before) > 1 and time.monotonic() < ends_at_s:
    time.sleep(0.01)
print(num_more)
"""


def test_what_it_makes_and_what_it_raises_come_back() -> None:
    assert in_passing_thread(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        in_passing_thread(lambda: 1 // 0)


@pytest.mark.engine
def test_loading_leaves_the_engines_thread_alone_behind(default_folder: Path) -> None:
    """Workers that loading had left would keep the engine's own from spinning, and halve its speed."""
    run = subprocess.run(
        [sys.executable, "-P", "-c", _LOAD, str(default_folder)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == 1
