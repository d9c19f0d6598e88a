from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sluice.backend.errors import EngineProcessError
from sluice.backend.process import READY_LINE, EngineProcess


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


async def test_it_serves_after_start_and_not_after_stop(tiny_folder: Path) -> None:
    lines: list[str] = []
    engine = EngineProcess(model=str(tiny_folder), on_progress=lines.append)
    with pytest.raises(EngineProcessError, match="not been started"):
        _ = engine.base_url
    await engine.start()
    url = engine.base_url
    try:
        assert engine.is_running
        assert answers(url)
        assert "loading tiny" in lines
    finally:
        await engine.stop()
    assert not engine.is_running
    assert not answers(url)
    await engine.stop()


async def test_a_child_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    engine = EngineProcess(model=str(tmp_path / "nowhere"))
    with pytest.raises(EngineProcessError, match=r"exit status 1.*\n(.*\n)*.*nowhere.*no such folder"):
        await engine.start()
    assert not engine.is_running


async def test_a_start_that_takes_too_long_leaves_nothing_running(tiny_folder: Path) -> None:
    engine = EngineProcess(model=str(tiny_folder), start_timeout_s=0.1)
    with pytest.raises(EngineProcessError, match=r"not ready within 0\.1 s"):
        await engine.start()
    assert not engine.is_running


async def test_a_cancelled_start_leaves_nothing_running(tiny_folder: Path) -> None:
    engine = EngineProcess(model=str(tiny_folder))
    start = asyncio.create_task(engine.start())
    while engine.pid is None:  # noqa: ASYNC110 - nothing tells that the child has been forked
        await asyncio.sleep(0.01)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not engine.is_running


async def test_a_crash_is_seen(tiny_folder: Path) -> None:
    async with EngineProcess(model=str(tiny_folder)) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        assert await asyncio.wait_for(engine.wait(), 10) == -signal.SIGKILL
        assert not engine.is_running
        assert "engine ready at" in engine.log_tail


LOSES_ITS_DEVICE = """
import sys, torch
from sluice.backend.cli import engine
from sluice.backend.embedded.runner import ModelRunner

def run(*_):
    raise torch.AcceleratorError("the device is lost")

ModelRunner.run = run
engine(["serve", "--port", "0", "--model", sys.argv[1], "--kv-cache-gib", "0.01"])
"""


def test_one_whose_engine_has_stopped_ends_and_says_why(tiny_folder: Path) -> None:
    command = [sys.executable, "-c", LOSES_ITS_DEVICE, str(tiny_folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = next(line.split()[3] for line in process.stderr if READY_LINE in line)
            body = {"model": "tiny", "prompt": "x"}
            response = httpx.post(f"{url}/v1/completions", json=body, timeout=30, trust_env=False)
            assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_error")
            assert process.wait(30) == 1
        finally:
            process.kill()
        assert process.stderr.read().endswith("Error: the engine has stopped: AcceleratorError\n")


async def test_it_serves_no_web_page(tiny_folder: Path) -> None:
    async with EngineProcess(model=str(tiny_folder), cache_dir=tiny_folder.parent) as process:
        headers = {"origin": "http://evil.example", "content-type": "text/plain"}
        url = f"{process.base_url}/v1/completions"
        body = b'{"model": "tiny", "prompt": "x", "max_tokens": 1}'
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            assert (await client.post(url, content=body, headers=headers)).status_code == 403
            assert (await client.post(url, content=body)).status_code == 200


PARENT = """
import asyncio, sys
from sluice.backend.process import EngineProcess

async def main():
    engine = EngineProcess(model=sys.argv[1])
    await engine.start()
    print(engine.base_url, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_killed_parent_leaves_no_orphan(tiny_folder: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tiny_folder)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert answers(url)
        parent.kill()
    deadline_s = time.monotonic() + 20
    while answers(url) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not answers(url)


def test_the_proxy_can_import_it_without_torch() -> None:
    code = "import sys, sluice.backend.process; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
