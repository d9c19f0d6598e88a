"""Every store passes the one contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sluice.compressor.state import MemoryStore, StateStore
from sluice.proxy.state.fronted import FrontedStore
from sluice.proxy.state.redis import RedisStore
from tests.state_contract import TTL_S, StateContract


def redis_store(url: str, ttl_s: float = TTL_S) -> RedisStore:
    return RedisStore(url, ttl_s=ttl_s, timeout_s=5.0)


def fronted_store(url: str, ttl_s: float = TTL_S) -> FrontedStore:
    return FrontedStore(redis_store(url, ttl_s), MemoryStore(ttl_s=ttl_s), ttl_s=ttl_s, tick_s=0.02)


class TestMemoryStore(StateContract):
    @pytest.fixture
    def store(self) -> StateStore:
        return MemoryStore(ttl_s=TTL_S)

    @pytest.fixture
    def twin(self, store: StateStore) -> StateStore:
        return store


@pytest.mark.redis
class TestRedisStore(StateContract):
    @pytest_asyncio.fixture
    async def store(self, redis_url: str) -> AsyncIterator[StateStore]:
        store = redis_store(redis_url)
        yield store
        await store.aclose()

    @pytest_asyncio.fixture
    async def twin(self, redis_url: str) -> AsyncIterator[StateStore]:
        store = redis_store(redis_url)
        yield store
        await store.aclose()


@pytest.mark.redis
class TestFrontedStore(StateContract):
    @pytest_asyncio.fixture
    async def store(self, redis_url: str) -> AsyncIterator[StateStore]:
        store = fronted_store(redis_url)
        yield store
        await store.aclose()

    @pytest_asyncio.fixture
    async def twin(self, redis_url: str) -> AsyncIterator[StateStore]:
        store = fronted_store(redis_url)
        yield store
        await store.aclose()
