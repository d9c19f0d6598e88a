"""Real processes: the proxy as users start it, with its workers, and an upstream that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from sluice.backend.free_port import free_port

_PATIENCE_S = 60.0
_ROOT = Path(__file__).resolve().parents[2]


def start(*options: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a proxy; its address is the first line of its stderr."""
    command = [sys.executable, "-m", "sluice.proxy.cli", "serve", "--port", "0", "--log-level", "warning", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})


@asynccontextmanager
async def served(
    *options: str, env: Mapping[str, str] | None = None, ends: bool = False
) -> AsyncIterator[tuple[subprocess.Popen[str], httpx.AsyncClient]]:
    """A proxy in processes of its own, once it answers; `ends` lets it end in its own time."""
    process = start(*options, env=env)
    assert process.stderr is not None
    try:
        line = await asyncio.to_thread(process.stderr.readline)
        url = "http://" + line.split("http://", 1)[1].split(" ")[0]
        # A connection for each request, so that all workers get some.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, timeout=_PATIENCE_S, limits=limits, trust_env=False) as client:
            assert (await client.get("/healthz")).status_code == 200
            # What it logs from here on must not fill the pipe.
            drained = asyncio.create_task(asyncio.to_thread(process.stderr.read))
            yield process, client
        if ends:
            process.terminate()
            await asyncio.to_thread(process.wait, _PATIENCE_S)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            child.kill()
        process.kill()
        process.wait()
        with contextlib.suppress(UnboundLocalError):
            await drained
        process.stderr.close()


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    """Ids of the workers; the tracker of shared resources beside them is none."""
    found = set()
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def one_that_is_asked(workers: Collection[int], port: int) -> int:
    """Wait until a worker of a proxy on this port holds a client's connection. Which one is for the system to say."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for worker in workers:
            connections = psutil.Process(worker).net_connections("tcp")
            if any(one.laddr.port == port and one.status == "ESTABLISHED" for one in connections):
                return worker
        time.sleep(0.001)
    raise AssertionError("nobody asks")


def wait_until_replaced(process: subprocess.Popen[str], killed: int, within_s: float = _PATIENCE_S) -> None:
    """Wait until a worker that was killed has a successor."""
    deadline = time.monotonic() + within_s
    while killed in (now := workers_of(process)) or len(now) < 2:
        assert time.monotonic() < deadline, now
        time.sleep(0.1)


class UpstreamProcess:
    """`scripted.py` in a process of its own, on one port however often it is killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it listens."""
        assert self._process is None
        self._process = _start_upstream(self.port)
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it without any warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _start_upstream(port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.proxy.scripted", str(port)], cwd=_ROOT)
