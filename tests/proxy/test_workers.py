"""Several workers in processes of their own, on one socket and one Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from itertools import pairwise
from typing import Any

import httpx
import psutil
import pytest

from tests.proxy.processes import served, wait_until_replaced, workers_of
from tests.proxy.servers import DONE, Exchange, ScriptedUpstream, chunk, reading_twice

pytestmark = pytest.mark.redis
CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def wait_until_shut(host: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except (ConnectionRefusedError, ConnectionResetError):
            return
    raise AssertionError("it still lets new connections in")


def turns() -> list[list[Any]]:
    messages = reading_twice()
    for number in range(3, 7):
        messages += json.loads(json.dumps(messages[3:5]).replace("call_2", f"call_{number}"))
    return [messages[: end + 1] for end, message in enumerate(messages) if message["role"] == "tool"]


async def counted(client: httpx.AsyncClient) -> float:
    """How many requests were answered with 200, as one of the workers says it."""
    text = (await client.get("/metrics")).text
    (line,) = (line for line in text.splitlines() if line.startswith('sluice_requests_total{status="200"}'))
    return float(line.rsplit(" ", 1)[1])


async def until_counted(client: httpx.AsyncClient, number: int) -> None:
    deadline = time.monotonic() + 60
    while (now := await counted(client)) != number:
        assert time.monotonic() < deadline, now
        await asyncio.sleep(0.02)


async def test_workers_share_what_they_decided_are_replaced_and_sum_their_counters(
    upstream: ScriptedUpstream, redis_url: str
) -> None:
    forwarded: list[list[Any]] = []
    async with served("--upstream", upstream.url, "--redis", redis_url, "--workers", "2") as (process, client):
        for number, messages in enumerate(turns()):
            if number == 3:
                await until_counted(client, number)  # an answer may arrive before it is counted
                killed = min(workers_of(process))
                psutil.Process(killed).kill()
                # The other one serves meanwhile; a connection that the killed one had taken is lost with it.
            for _ in range(20):
                try:
                    answer = await client.post(CHAT, json={"model": "gpt-4o", "messages": messages})
                    break
                except httpx.TransportError:
                    continue
            assert answer.status_code == 200
            forwarded.append(upstream.last.json["messages"])
        await asyncio.to_thread(wait_until_replaced, process, killed)
        for _ in range(20):
            assert (await client.post(CHAT, json=BODY)).status_code == 200
        # Every worker says the same: the sum, what the killed one had counted included.
        await until_counted(client, len(turns()) + 20)
        assert {await counted(client) for _ in range(4)} == {len(turns()) + 20}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 0
    for earlier, later in pairwise(forwarded):
        assert later[: len(earlier)] == earlier
    assert "as in message 3" in forwarded[-1][4]["content"]


async def test_sigterm_lets_streams_come_to_their_end(upstream: ScriptedUpstream, redis_url: str) -> None:
    go_on = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("one"))
        await go_on.wait()
        await exchange.part(chunk("two") + DONE)
        await exchange.end()

    upstream.answer = slowly
    async with served("--upstream", upstream.url, "--redis", redis_url, "--workers", "2") as (process, client):
        async with client.stream("POST", CHAT, json={**BODY, "stream": True}) as answer:
            parts = answer.aiter_bytes()
            received = await anext(parts)
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(wait_until_shut, client.base_url.host, client.base_url.port)
            go_on.set()
            async for part in parts:
                received += part
        assert received == chunk("one") + chunk("two") + DONE
        assert await asyncio.to_thread(process.wait, 60) == 0


async def test_a_worker_that_is_killed_while_it_is_asked_whether_it_lives_is_replaced(
    upstream: ScriptedUpstream, redis_url: str
) -> None:
    async with served("--upstream", upstream.url, "--redis", redis_url, "--workers", "2") as (process, client):
        killed = min(workers_of(process))
        psutil.Process(killed).suspend()
        await asyncio.sleep(1.5)  # it is asked twice a second, and now gives no answer
        psutil.Process(killed).kill()
        # One that lives may take a minute to answer.
        await asyncio.to_thread(wait_until_replaced, process, killed, 30)
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_workers_end_with_a_parent_that_is_killed(upstream: ScriptedUpstream, redis_url: str) -> None:
    async with served("--upstream", upstream.url, "--redis", redis_url, "--workers", "2") as (process, _):
        workers = [psutil.Process(pid) for pid in workers_of(process)]
        assert len(workers) == 2
        process.kill()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, 30)
    assert (len(gone), alive) == (2, [])
