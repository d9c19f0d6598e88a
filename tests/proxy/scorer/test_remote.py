"""A scorer in another process, which is killed, stopped, replaced and talks nonsense: requests go on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from sluice.backend.free_port import free_port
from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, Window
from sluice.proxy.scorer.cli import scorer
from sluice.proxy.scorer.client import RemoteScores
from sluice.proxy.scorer.wire import SCORES_PATH, OwnWire, decode_scores, encode_windows
from tests.compressor.scoring.neural.doubles import wanted
from tests.proxy.servers import Exchange, ScriptedUpstream, serving

LONG_S = 20.0
ROOT = Path(__file__).parents[3]


class Process:
    """A stand-in on a port of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.running: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.proxy.scorer.stand_in", str(self.port), *arguments]
        self.running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.running.stdout is not None
        assert "listens" in self.running.stdout.readline()

    def signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        os.kill(self.running.pid, number)

    def kill(self) -> None:
        if self.running is not None:
            self.running.kill()
            self.running.communicate()
            self.running = None


@pytest.fixture
def process() -> Iterator[Process]:
    found = Process()
    yield found
    found.kill()


def window(number: int = 0) -> Window:
    rng = np.random.default_rng(number)
    return Window(rng.integers(0, 99, 100).astype(np.int32), np.array([50, 70, 99], np.int32), 40, 0, 0)


@asynccontextmanager
async def asking(url: str, version: str = "7") -> AsyncIterator[RemoteScores]:
    scores = RemoteScores(url, OwnWire(version))
    scores.start()
    try:
        yield scores
    finally:
        await scores.aclose()


async def until(is_so: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < ends_s
        await asyncio.sleep(0.01)


async def outcome(future: Future[Floats], within_s: float = LONG_S) -> Floats | Fallback:
    try:
        return await asyncio.to_thread(future.result, within_s)
    except NotScoredError as error:
        return error.reason


async def ask(scores: RemoteScores, within_s: float = LONG_S) -> Floats | Fallback:
    (future,) = await asyncio.to_thread(scores.submit, [window()], within_s)
    return await outcome(future)


async def test_scores_come_from_another_process_and_are_those_of_its_model(process: Process) -> None:
    process.start()
    async with asking(process.url) as scores:
        await until(lambda: scores.is_admitted)
        windows = [window(number) for number in range(5)]
        for one, future in zip(windows, scores.submit(windows, LONG_S), strict=True):
            found = await outcome(future)
            assert isinstance(found, np.ndarray)
            assert np.allclose(found, wanted(one), atol=0.01)


async def test_one_that_is_killed_costs_nothing_and_is_asked_again_once_it_is_back(process: Process) -> None:
    process.start()
    async with asking(process.url) as scores:
        await until(lambda: scores.is_admitted)
        assert isinstance(await ask(scores), np.ndarray)
        process.kill()
        started_s = time.perf_counter()
        assert await ask(scores) is Fallback.DOWN
        for _ in range(50):  # known to be down: nothing is sent, nothing is waited for
            (future,) = scores.submit([window()], LONG_S)
            assert future.done()
            assert await outcome(future) is Fallback.DOWN
        assert time.perf_counter() - started_s < 5
        process.start()
        await until(lambda: scores.is_admitted)
        assert isinstance(await ask(scores), np.ndarray)


async def test_one_that_is_killed_while_it_is_asked_answers_at_once(process: Process) -> None:
    process.start("7", "30")
    async with asking(process.url) as scores:
        await until(lambda: scores.is_admitted)
        (future,) = scores.submit([window()], LONG_S)
        await asyncio.sleep(0.3)
        assert not future.done()
        process.kill()
        started_s = time.perf_counter()
        assert await outcome(future) is Fallback.DOWN
        assert time.perf_counter() - started_s < 5


async def test_one_that_hangs_costs_a_few_deadlines_and_no_more(process: Process) -> None:
    process.start()
    async with asking(process.url) as scores:
        await until(lambda: scores.is_admitted)
        process.signal(signal.SIGSTOP)
        try:
            outcomes = [await ask(scores, 0.03) for _ in range(20)]
        finally:
            process.signal(signal.SIGCONT)
        assert set(outcomes[:3]) == {Fallback.DEADLINE}
        assert set(outcomes[3:]) == {Fallback.DOWN}
        await until(lambda: scores.is_admitted)
        assert isinstance(await ask(scores), np.ndarray)


async def test_past_the_deadline_the_process_says_so_itself(process: Process) -> None:
    process.start("7", "0.5")
    async with asking(process.url) as scores:
        await until(lambda: scores.is_admitted)  # it listens before it has loaded
    windows = [window()]
    async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=LONG_S) as client:
        answer = await client.post(SCORES_PATH, content=encode_windows(windows, 0.1))
    assert answer.status_code == 200
    (found,) = decode_scores(answer.content, windows, "7")
    assert isinstance(found, NotScoredError)
    assert found.reason in (Fallback.DEADLINE, Fallback.BUSY)


async def test_one_with_another_model_is_not_asked(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    process.start("8")
    async with asking(process.url) as scores:
        await until(lambda: "serves coins 8" in caplog.text)
        assert await ask(scores) is Fallback.LOADING
        process.kill()
        process.start("7")
        await until(lambda: scores.is_admitted)
        assert isinstance(await ask(scores), np.ndarray)


async def test_where_nobody_listens_nobody_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with asking(url) as scores:
        (future,) = scores.submit([window()], LONG_S)
        assert future.done()
        assert await outcome(future) is Fallback.LOADING


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"{}",
        msgspec.msgpack.encode(["7", [], {}]),
        msgspec.msgpack.encode(["8", [bytes(12)], {}]),
        msgspec.msgpack.encode(["7", [b"ab"], {}]),
        msgspec.msgpack.encode(["7", [None], {0: "moody"}]),
    ],
)
async def test_nonsense_is_no_answer(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    upstream = ScriptedUpstream()

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/healthz":
            await exchange.whole(b'{"name": "x", "version": "7", "tokens_per_s": 1}')
        else:
            await exchange.whole(nonsense)

    upstream.answer = answer
    async with serving(upstream) as url, asking(url) as scores:
        await until(lambda: scores.is_admitted)
        assert await ask(scores) is Fallback.DOWN
        assert not scores.is_admitted
        assert "scorer_lost" in caplog.text


async def test_what_is_asked_of_a_process_is_checked(process: Process) -> None:
    import httpx

    process.start()
    async with asking(process.url) as scores, httpx.AsyncClient(base_url=process.url, trust_env=False) as client:
        await until(lambda: scores.is_admitted)
        assert (await client.post("/v1/scores", content=b"nonsense")).status_code == 400
        bad = Window(np.zeros(9, np.int32), np.array([4, 3], np.int32), 0, 0, 0)
        answer = await client.post("/v1/scores", content=OwnWire("7").body([bad], 1.0))
        assert (answer.status_code, "window 0" in answer.text) == (400, True)
        long = Window(np.zeros(1_000, np.int32), np.array([4], np.int32), 0, 0, 0)
        assert (await client.post("/v1/scores", content=OwnWire("7").body([long], 1.0))).status_code == 400
        assert (await client.get("/healthz", headers={"host": "example.org"})).status_code == 403
        assert (await client.get("/elsewhere")).status_code == 404
        assert isinstance(await ask(scores), np.ndarray)
        assert 'sluice_scorer_windows_total{outcome="scored"} 1.0' in (await client.get("/metrics")).text


def test_a_gpu_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(scorer, ["serve", "--port", "0", "--device", "cuda"])
    assert result.exit_code == 1
    assert "--device cuda: torch sees no GPU" in result.output
