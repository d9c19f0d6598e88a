"""How a proxy ends when it is told to: by a signal, or by a terminal that is closed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.proxy.processes import start
from tests.proxy.servers import DONE, Exchange, ScriptedUpstream, chunk

PATIENCE_S = 60.0
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def line_of(process: subprocess.Popen[str]) -> str:
    """What it says next."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.to_thread(process.stderr.readline)


async def url_of(process: subprocess.Popen[str]) -> str:
    line = await line_of(process)
    return "http://" + line.split("http://", 1)[1].split(" ")[0]


@asynccontextmanager
async def streaming(process: subprocess.Popen[str]) -> AsyncIterator[AsyncIterator[bytes]]:
    """An answer of which the first part is there; the parts that follow."""
    async with (
        httpx.AsyncClient(base_url=await url_of(process), timeout=PATIENCE_S, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=BODY) as stream,
    ):
        parts = stream.aiter_bytes()
        await anext(parts)
        yield parts


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and what it said since."""
    _, said = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_an_answer_in_progress_comes_to_its_end(upstream: ScriptedUpstream, number: signal.Signals) -> None:
    has_been_told = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("a"))
        await has_been_told.wait()
        await exchange.part(chunk("b") + DONE)
        await exchange.end()

    upstream.answer = answer
    process = start("--upstream", upstream.url, env={"SLUICE_DRAIN_S": "30"})
    try:
        async with streaming(process) as parts:
            process.send_signal(number)
            assert "get 30 s" in await line_of(process)
            has_been_told.set()
            assert b"".join([part async for part in parts]).endswith(DONE)
        assert await ended(process) == (0, "")
    finally:
        process.kill()


async def test_told_twice_it_ends_at_once_and_complains_of_nothing(upstream: ScriptedUpstream) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("a"))
        await exchange.hung_up.wait()

    upstream.answer = endless
    process = start("--upstream", upstream.url, env={"SLUICE_DRAIN_S": "3600"})
    try:
        async with streaming(process) as parts:
            process.send_signal(signal.SIGINT)
            assert "told again, it ends at once" in await line_of(process)
            process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.HTTPError):
                await anext(parts)
        assert await ended(process) == (0, "")
    finally:
        process.kill()
