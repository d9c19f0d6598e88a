"""Every store passes the one contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sluice.compressor.state import MemoryStore, StateStore
from sluice.proxy.state.fronted import FrontedStore
from sluice.proxy.state.redis import RedisStore
from tests.state_contract import StateContract, Wait


def redis_store(url: str, ttl_s: float) -> RedisStore:
    return RedisStore(url, ttl_s=ttl_s, timeout_s=5.0)


def fronted_store(url: str, ttl_s: float) -> FrontedStore:
    return FrontedStore(redis_store(url, ttl_s), MemoryStore(ttl_s=ttl_s), ttl_s=ttl_s, tick_s=0.02)


class TestMemoryStore(StateContract):
    now_s = 0.0

    @pytest.fixture
    def store(self, ttl_s: float) -> StateStore:
        return MemoryStore(ttl_s=ttl_s, clock=lambda: self.now_s)

    @pytest.fixture
    def wait(self) -> Wait:
        async def wait(seconds: float) -> None:
            self.now_s += seconds

        return wait

    @pytest.fixture
    def twin(self, store: StateStore) -> StateStore:
        return store


@pytest.mark.redis
class TestRedisStore(StateContract):
    @pytest_asyncio.fixture
    async def store(self, redis_url: str, ttl_s: float) -> AsyncIterator[StateStore]:
        store = redis_store(redis_url, ttl_s)
        yield store
        await store.aclose()

    @pytest_asyncio.fixture
    async def twin(self, redis_url: str, ttl_s: float) -> AsyncIterator[StateStore]:
        store = redis_store(redis_url, ttl_s)
        yield store
        await store.aclose()


@pytest.mark.redis
class TestFrontedStore(StateContract):
    @pytest_asyncio.fixture
    async def store(self, redis_url: str, ttl_s: float) -> AsyncIterator[StateStore]:
        store = fronted_store(redis_url, ttl_s)
        yield store
        await store.aclose()

    @pytest_asyncio.fixture
    async def twin(self, redis_url: str, ttl_s: float) -> AsyncIterator[StateStore]:
        store = fronted_store(redis_url, ttl_s)
        yield store
        await store.aclose()
