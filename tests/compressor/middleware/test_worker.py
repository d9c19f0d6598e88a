from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from sluice.compressor.middleware import worker


def test_threads_that_come_first_together_get_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[asyncio.AbstractEventLoop] = []
    found: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def slowly() -> asyncio.AbstractEventLoop:
        time.sleep(0.02)
        made.append(new_event_loop())
        return made[-1]

    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def call() -> None:
        together.wait(20)
        found.append(worker.submit(running()).result(20))

    monkeypatch.setattr(worker, "_worker", worker._Worker())
    monkeypatch.setattr(asyncio, "new_event_loop", slowly)
    together = threading.Barrier(8)
    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), found) == (1, made * 8)
    made[0].call_soon_threadsafe(made[0].stop)
    while made[0].is_running():
        time.sleep(0.001)
    made[0].close()


FORKS = """
import os
from sluice.compressor.middleware import worker

async def seven():
    return 7

assert worker.submit(seven()).result(20) == 7
child = os.fork()
if child == 0:
    os._exit(worker.submit(seven()).result(20))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_a_forked_process_has_a_loop_of_its_own() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], check=True, timeout=60)
