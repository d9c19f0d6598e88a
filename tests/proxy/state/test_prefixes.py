"""Prefixes through Redis: several proxies on one store, restarts, pauses, and a Redis that goes away in between."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import StateStore
from sluice.proxy.settings import Settings
from sluice.proxy.state import make_store
from tests.compressor.conversations import Json, turns
from tests.compressor.epochs import COLD_S, Clock, check, make, send
from tests.effort import examples
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@examples(40)
@given(turns(max_size=14), st.data())
def test_only_a_declared_epoch_moves_a_prefix(
    shared_redis: RedisServer, messages: list[Json], data: st.DataObject
) -> None:
    def open_store() -> StateStore:
        # Generous, since what is tested is not how fast a busy machine answers.
        return make_store(Settings(redis_url=shared_redis.url, redis_timeout_s=5.0))

    async def run() -> None:
        stores = [open_store() for _ in range(2)]
        try:
            await play(stores)
        finally:
            for store in stores:
                await store.aclose()

    async def play(stores: list[StateStore]) -> None:
        clock, salt = Clock(), {"role": "user", "content": uuid.uuid4().hex}
        workers = [make(store, clock) for store in stores]
        forwarded: list[bytes] = []
        stop = 0
        while stop < len(messages):
            stop = min(len(messages), stop + data.draw(st.integers(1, 4)))
            clock.now_s += data.draw(st.sampled_from([1.0, 1.0, COLD_S]))
            worker = data.draw(st.integers(0, 2))
            if worker == 2:  # a proxy that has just been started
                await stores[0].aclose()
                stores[0] = open_store()
                workers[0] = make(stores[0], clock)
                worker = 0
            request = [salt, *messages[:stop]]
            compressed, twin = await asyncio.gather(send(workers[worker], request), send(workers[1 - worker], request))
            assert compressed.bypass is None
            assert twin.messages == compressed.messages, "workers that race on a turn agree"
            if compressed.epoch is None and twin.epoch is None:
                assert compressed.messages[: len(forwarded)] == forwarded
            check(request, compressed)
            forwarded = compressed.messages

    asyncio.run(run())
