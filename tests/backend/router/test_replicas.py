from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sluice.backend.router.prompt import Prompt
from sluice.backend.router.replicas import Replica, ReplicaSet
from tests.backend.router.publisher import Publisher
from tests.proxy.servers import Exchange, ScriptedUpstream, serving


class Health:
    """A replica's health, as it is told from one question to the next."""

    def __init__(self) -> None:
        self.status = 200
        self.hangs = 0
        self.upstream = ScriptedUpstream()
        self.upstream.answer = self.answer

    async def answer(self, exchange: Exchange) -> None:
        if self.hangs:
            self.hangs -= 1
            await asyncio.sleep(30)
        if exchange.path == "/health":
            await exchange.whole(b"", self.status)
        else:
            await exchange.whole(b'vllm:cache_config_info{kv_cache_size_tokens="4096"} 1\n')


@asynccontextmanager
async def watched(health: Health, kv_events: str | None = None) -> AsyncIterator[tuple[ReplicaSet, str, list[str]]]:
    lines: list[str] = []
    async with serving(health.upstream) as url:
        made = ReplicaSet([Replica(url, kv_events)], check_s=0.02, health_timeout_s=1.0, on_change=lines.append)
        await made.start()
        try:
            yield made, url, lines
        finally:
            await made.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it asks in its own time
            await asyncio.sleep(0.02)


async def test_one_that_is_slow_to_answer_is_kept_and_one_that_never_does_is_not() -> None:
    health = Health()
    async with watched(health) as (fleet, url, lines):
        health.hangs = 2
        await until(lambda: health.hangs == 0)
        asked = len(health.upstream.exchanges)
        await until(lambda: len(health.upstream.exchanges) >= asked + 3)  # those after it are answered
        assert (fleet.router.is_up(url), lines) == (True, [])
        health.hangs = 1000
        await until(lambda: not fleet.router.is_up(url))
        assert lines == [f"replica {url} is left out: it did not answer 3 times"]
        health.hangs = 0
        await until(lambda: fleet.router.is_up(url))


async def test_events_are_heard_anew_from_one_that_comes_back(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/kv"
    publisher, health = Publisher(endpoint), Health()
    try:
        await publisher.publish(1)
        await publisher.publish(2)
        async with watched(health, endpoint) as (fleet, url, _):
            await until(lambda: fleet.index.num_blocks(url) == 2)
            health.status = 503
            await until(lambda: not fleet.router.is_up(url))
            publisher.batches.clear()  # it has been started again, and holds something else
            await publisher.publish(7, is_lost=True)
            health.status = 200
            await until(lambda: fleet.index.num_blocks(url) == 1)
    finally:
        await publisher.aclose()


@pytest.mark.parametrize("kept_from", [0, 2])
async def test_what_is_known_in_part_does_not_stand_for_what_is_remembered(tmp_path: Path, kept_from: int) -> None:
    endpoint = f"ipc://{tmp_path}/kv"
    publisher, health = Publisher(endpoint), Health()
    prompt = Prompt((b"r", b"1"), (10, 20))
    try:
        for block in range(4):
            await publisher.publish(block)
        publisher.kept_from = kept_from
        async with watched(health, endpoint) as (fleet, url, _):
            await until(lambda: fleet.index.num_blocks(url) == 4 - kept_from)
            fleet.blocks.learn(prompt, [1, 1, 9, 9], 2)
            held = fleet.held(prompt)
            assert held is None if kept_from else held is not None
    finally:
        await publisher.aclose()


async def test_an_endpoint_that_is_none_is_named() -> None:
    async with watched(Health(), "nonsense") as (_, _, lines):
        await until(lambda: bool(lines))
        assert lines[0].startswith("cannot hear KV events at nonsense")


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_any_answer_but_200_leaves_it_out(status: int) -> None:
    health = Health()
    async with watched(health) as (fleet, url, lines):
        health.status = status
        await until(lambda: not fleet.router.is_up(url))
        assert lines == [f"replica {url} is left out: it answered {status} on /health"]
