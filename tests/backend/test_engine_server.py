"""The embedded engine, kept up: killed, with a model that has gone bad, and ended while it is down."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from sluice.backend.engine_server import EngineServer
from sluice.backend.errors import EngineProcessError, GivenUpError
from sluice.backend.supervisor import Phase, RestartPolicy, ServerState

QUICK = RestartPolicy(max_restarts=2, first_wait_s=0)


class Watch:
    """The states that are told."""

    def __init__(self) -> None:
        self.states: list[ServerState] = []

    def __call__(self, state: ServerState) -> None:
        self.states.append(state)

    async def until(self, condition: Callable[[ServerState], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition(self.states[-1]):  # noqa: ASYNC110 - it is told from a callback
                await asyncio.sleep(0.02)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model of the test's own."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def kill(server: EngineServer) -> int:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


async def test_it_comes_back_where_it_was(folder: Path) -> None:
    watch, events = Watch(), list[str]()
    server = EngineServer(model=str(folder), policy=QUICK, on_event=events.append, on_state=watch)
    with pytest.raises(EngineProcessError, match="not been started"):
        _ = server.base_url
    async with server, httpx.AsyncClient(timeout=30, trust_env=False) as client:
        url, first = server.base_url, kill(server)
        await watch.until(lambda state: state.num_restarts == 1)
        assert server.base_url == url
        assert server.pid != first
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        assert (await client.post(f"{url}/v1/chat/completions", json=body)).status_code == 200
        last = server.pid
    assert last is not None
    assert not psutil.pid_exists(last)
    phases = [state.phase for state in watch.states]
    assert phases == [Phase.STARTING, Phase.READY, Phase.RESTARTING, Phase.READY]
    assert watch.states[2].ready_at_s > 0
    assert any("the embedded engine ended with exit status -9; its last lines:" in event for event in events)


async def test_a_model_that_can_be_loaded_no_longer_is_not_loaded_for_ever(folder: Path) -> None:
    watch, events = Watch(), list[str]()
    async with EngineServer(model=str(folder), policy=QUICK, on_event=events.append, on_state=watch) as server:
        (folder / "model.safetensors").write_bytes(b"no weights")
        kill(server)
        with pytest.raises(GivenUpError, match=r"ended 3 times within 600 s and is given up(.*\n)*.*tiny"):
            await asyncio.wait_for(server.wait(), 120)
        assert server.pid is None
    assert watch.states[-1].phase is Phase.GIVEN_UP
    assert watch.states[-1].num_restarts == 0
    assert sum("started again in" in event for event in events) == 2


async def test_one_that_is_ended_while_it_starts_again_leaves_nothing(folder: Path) -> None:
    watch = Watch()
    server = EngineServer(model=str(folder), policy=QUICK, on_state=watch)
    await server.start()
    me = psutil.Process()
    others = {child for child in me.children() if child.pid != server.pid}
    kill(server)
    await watch.until(lambda state: state.phase is Phase.RESTARTING)
    async with asyncio.timeout(30):
        while not set(me.children()) - others:  # noqa: ASYNC110 - nothing tells that the child has been forked
            await asyncio.sleep(0.01)
    await server.stop()
    assert not set(me.children()) - others


async def test_a_first_start_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    watch = Watch()
    server = EngineServer(model=str(tmp_path / "nowhere"), policy=QUICK, on_state=watch)
    with pytest.raises(EngineProcessError, match="nowhere"):
        await server.start()
    await server.stop()
    assert [state.phase for state in watch.states] == [Phase.STARTING]
