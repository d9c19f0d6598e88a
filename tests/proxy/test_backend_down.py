"""The backend that the proxy runs dies: requests meanwhile, what is told of it, its return, and no orphan."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from sluice.backend.supervisor import Phase, ServerState
from sluice.proxy.errors import (
    BackendDownError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamReadTimeoutError,
    UpstreamUnreachableError,
)
from sluice.proxy.upstreams import BackendStatus
from sluice.proxy.upstreams.managed import explained
from tests.proxy.processes import start

PATIENCE_S = 120.0
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
REFUSED, DROPPED = UpstreamUnreachableError("refused"), UpstreamDisconnectedError("dropped")
SLOW = UpstreamReadTimeoutError("http://u", 3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from tests.backend.conftest import write_tiny_model

    return write_tiny_model(tmp_path / "tiny")


@asynccontextmanager
async def served(model: Path, *options: str) -> AsyncIterator[tuple[subprocess.Popen[str], httpx.AsyncClient]]:
    """A proxy with the embedded backend, once it listens."""
    process = start("--backend", "embedded", "--model", str(model), *options)
    assert process.stderr is not None
    drained = None
    try:
        said = ""
        while "sluice listens on" not in (line := await asyncio.to_thread(process.stderr.readline)):
            said += line
            assert line, said
        url = "http://" + line.split("http://", 1)[1].split(" ")[0]
        drained = asyncio.create_task(asyncio.to_thread(process.stderr.read))
        # A connection for each request, so that all workers get some.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
            yield process, client
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()
        if drained is not None:
            await drained
        process.stderr.close()


def engines_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "sluice.backend.cli" in child.cmdline():
                found.append(child)
    return found


async def successor(process: subprocess.Popen[str], engine: psutil.Process) -> psutil.Process:
    """Wait for the engine that is started in the place of one; nothing tells that it has been forked."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := [each for each in engines_of(process) if each.pid != engine.pid]):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found[0]


async def suspended_successor(process: subprocess.Popen[str], engine: psutil.Process) -> psutil.Process:
    """The same, stopped before it can be ready."""
    found = await successor(process, engine)
    found.suspend()
    return found


async def until_back(client: httpx.AsyncClient) -> list[httpx.Response]:
    """Ask until it is answered; the refusals before."""
    refusals: list[httpx.Response] = []
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await client.post("/v1/chat/completions", json=BODY)).status_code != 200:
            refusals.append(answer)
    return refusals


@pytest.mark.engine
@pytest.mark.parametrize(("num_workers", "how"), [(1, signal.SIGKILL), (2, signal.SIGTERM)])
async def test_a_killed_backend_comes_back_says_so_meanwhile_and_is_no_orphan_of_a_proxy_that_ends(
    model: Path, num_workers: int, how: signal.Signals, redis_url: str
) -> None:
    options = ["--workers", str(num_workers), "--redis", redis_url] if num_workers > 1 else []
    async with served(model, *options) as (process, client):
        assert (await client.get("/healthz")).json() == {"status": "ok", "backend": "ready"}
        (engine,) = engines_of(process)
        stopping = asyncio.create_task(suspended_successor(process, engine))
        engine.kill()
        refused = await client.post("/v1/chat/completions", json=BODY)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "backend_down"
        assert "the embedded backend ended and is being started again" in refused.json()["error"]["message"]
        assert (await client.get("/healthz")).json() == {"status": "ok", "backend": "restarting"}
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "is being started again" in ready.json()["upstreams"]["default"]
        assert 'sluice_backend_up{backend="embedded"} 0' in (await client.get("/metrics")).text
        messages = await client.post("/v1/messages", json={**BODY, "max_tokens": 3})
        assert (messages.status_code, messages.json()["error"]["type"]) == (503, "overloaded_error")

        (await stopping).resume()
        refusals = await until_back(client)
        assert {(each.status_code, each.json()["error"]["code"]) for each in refusals} <= {(503, "backend_down")}
        metrics = (await client.get("/metrics")).text
        assert 'sluice_backend_up{backend="embedded"} 1' in metrics
        assert 'sluice_backend_restarts_total{backend="embedded"} 1' in metrics
        assert (await client.get("/readyz")).status_code == 200
        (engine,) = engines_of(process)

        engine.kill()
        orphan = await successor(process, engine)
        process.send_signal(how)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == (0 if how is signal.SIGTERM else -how)
        deadline_s = time.monotonic() + PATIENCE_S
        while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline_s, orphan
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("error", [REFUSED, DROPPED])
@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RESTARTING])
def test_what_is_started_again_says_when_it_will_be_ready(error: UpstreamError, phase: Phase) -> None:
    down = explained(error, "vllm", ServerState(phase, 1, 1_000.0), 990.0)
    assert isinstance(down, BackendDownError)
    assert down.retry_after_s == 10
    late = explained(error, "vllm", ServerState(phase, 1, 1_000.0), 2_000.0)
    assert late.retry_after_s == 1


@pytest.mark.parametrize("error", [REFUSED, DROPPED])
def test_what_was_given_up_is_not_waited_for(error: UpstreamError) -> None:
    down = explained(error, "vllm", ServerState(Phase.GIVEN_UP), 990.0)
    assert isinstance(down, BackendDownError)
    assert down.retry_after_s is None
    assert "'sluice serve' has to be started again" in str(down)


def test_what_says_nothing_of_the_backend_is_left_as_it_is() -> None:
    assert explained(SLOW, "vllm", ServerState(Phase.RESTARTING), 0.0) is SLOW
    assert explained(DROPPED, "vllm", ServerState(Phase.READY), 0.0) is DROPPED
    assert isinstance(explained(REFUSED, "vllm", ServerState(Phase.READY), 0.0), BackendDownError)


def test_a_state_is_read_as_it_was_told(tmp_path: Path) -> None:
    status = BackendStatus("vllm", tmp_path / "state.json")
    assert status.read() == ServerState()
    state = ServerState(Phase.RESTARTING, 3, 1_000.5)
    status.write(state)
    assert status.read() == state
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_state_that_cannot_be_told_stops_nothing(tmp_path: Path) -> None:
    status = BackendStatus("vllm", tmp_path / "nowhere" / "state.json")
    status.write(ServerState(Phase.READY))
    assert status.read() == ServerState()
