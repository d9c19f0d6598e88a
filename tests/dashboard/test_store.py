"""One suite for both stores: the last request of recent conversations, within bounds, and recent searches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from sluice.compressor import StateError
from sluice.compressor.ledger import Omitted, Reason
from sluice.proxy.dashboard.kept import FileShare, KeptMessage, KeptRequest, Summary, pack, unpack
from sluice.proxy.dashboard.redis_store import RedisWatchStore
from sluice.proxy.dashboard.store import MAX_SEARCHES, MemoryWatchStore, Searched, WatchStore
from sluice.proxy.wire import WireName
from tests.redis_server import RedisServer

NOW_S = 1_795_000_000.0
Make = Callable[..., WatchStore]


@pytest_asyncio.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    made: list[WatchStore] = []

    def factory(max_conversations: int = 10, max_bytes: int = 10_000, ttl_s: float = 1000.0) -> WatchStore:
        bounds = {"max_conversations": max_conversations, "max_bytes": max_bytes, "ttl_s": ttl_s}
        if request.param == "memory":
            made.append(MemoryWatchStore(**bounds, clock=lambda: NOW_S))  # type: ignore[arg-type]
        else:
            made.append(RedisWatchStore(request.getfixturevalue("redis_url"), **bounds))  # type: ignore[arg-type]
        return made[-1]

    yield factory
    for store in made:
        await store.aclose()


def summary(name: str, at_s: float = NOW_S, title: str = "fix it") -> Summary:
    return Summary(name, b"tenant", at_s, title, (FileShare("a.py", 10, 5),))


async def names(store: WatchStore) -> list[str]:
    return [one.conversation for one in await store.summaries()]


async def test_the_last_request_of_a_conversation_is_kept(make: Make) -> None:
    store = make()
    await store.keep(summary("a", NOW_S - 2), b"old")
    await store.keep(summary("b", NOW_S - 1), b"other")
    await store.keep(summary("a", NOW_S, "now"), b"new")
    assert await store.request("a") == (summary("a", NOW_S, "now"), b"new")
    assert await names(store) == ["a", "b"]
    assert await store.request("c") is None


async def test_the_oldest_make_room_by_number_and_by_size(make: Make) -> None:
    store = make(max_conversations=2)
    for number, name in enumerate("abc"):
        await store.keep(summary(name, NOW_S + number), b"x")
    assert await names(store) == ["c", "b"]
    assert await store.request("a") is None

    await store.keep(summary("d", NOW_S + 4), b"x" * 9_999)
    assert await names(store) == ["d", "c"]
    await store.keep(summary("d", NOW_S + 5), b"x" * 9_000)
    await store.keep(summary("e", NOW_S + 6), b"x" * 1_001)
    assert await names(store) == ["e"], "the bound is on all of them together"
    await store.keep(summary("f", NOW_S + 7), b"x" * 10_001)
    assert await names(store) == ["e"], "what is larger than all may be together makes nobody go"
    await store.keep(summary("e", NOW_S + 8), b"x" * 10_001)
    assert await names(store) == [], "an earlier request is not shown for the last"


async def test_what_is_old_is_forgotten(make: Make) -> None:
    store = make(ttl_s=100.0)
    await store.keep(summary("a", NOW_S - 101), b"x")
    await store.keep(summary("b"), b"x")
    assert await names(store) == ["b"]
    assert await store.request("a") is None


async def test_searches_come_newest_first_and_are_bounded(make: Make) -> None:
    store = make()
    for number in range(MAX_SEARCHES + 5):
        await store.add_search(Searched(float(number), "root", "fast", 3, 900, 12.5, f"q{number}", b"tenant"))
    found = await store.searches()
    assert len(found) == MAX_SEARCHES
    assert found[0] == Searched(204.0, "root", "fast", 3, 900, 12.5, "q204", b"tenant")


def test_a_request_is_packed_and_read_again() -> None:
    message = KeptMessage(b"raw", b"forwarded", (Omitted(0, 3, 9, Reason.NOT_NEEDED, 0.01),))
    request = KeptRequest(WireName.CHAT, 1, (KeptMessage(b"system"), message))
    assert unpack(pack(request)) == request
    assert unpack(b"of another version") is None


@pytest.mark.redis
async def test_a_lost_redis_is_said(redis_server: RedisServer) -> None:
    store = RedisWatchStore(redis_server.url, max_conversations=1, max_bytes=100, ttl_s=10.0)
    redis_server.kill()
    with pytest.raises(StateError):
        await store.summaries()
    await store.aclose()
