"""The copy in this process: what is known survives a lost Redis, what could not be written is written later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sluice.compressor import MemoryStore, StateError
from sluice.proxy.breaker import Breaker
from sluice.proxy.state.fronted import FrontedStore
from sluice.proxy.state.redis import RedisStore
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


def make(server: RedisServer, **options: Any) -> FrontedStore:
    remote = RedisStore(server.url, timeout_s=5.0, breaker=Breaker(retry_s=0.05))
    return FrontedStore(remote, MemoryStore(), **{"ttl_s": 1000.0, "tick_s": 0.02, **options})


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await check():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)


async def test_what_is_known_here_is_not_asked_for_there(redis_server: RedisServer) -> None:
    store = make(redis_server)
    await store.put_new({b"a": b"1"})
    redis_server.command("FLUSHALL")
    assert await store.get_many([b"a"]) == [b"1"]
    assert await store.put_new({b"a": b"2"}) == {b"a": b"1"}
    await store.aclose()


async def test_a_lost_redis_is_an_error_only_where_something_is_not_known(redis_server: RedisServer) -> None:
    store = make(redis_server)
    await store.put_new({b"a": b"1", b"b": b"2"})
    redis_server.kill()
    assert await store.get_many([b"b", b"a"]) == [b"2", b"1"]
    with pytest.raises(StateError) as caught:
        await store.get_many([b"a", b"unknown", b"b"])
    assert caught.value.known == {b"a": b"1", b"b": b"2"}
    await store.aclose()


async def test_a_miss_there_is_a_miss(redis_server: RedisServer) -> None:
    store = make(redis_server)
    assert await store.get_many([b"a"]) == [None]
    await store.aclose()


async def test_what_could_not_be_written_is_written_when_redis_is_back(redis_server: RedisServer) -> None:
    store, other = make(redis_server), RedisStore(redis_server.url, timeout_s=5.0)
    redis_server.kill()
    assert await store.put_new({b"a": b"1"}) == {b"a": b"1"}
    await store.put_originals(b"t", {"7f3a" + "0" * 28: "lone \ud83d"})
    assert await store.find_originals(b"t", "7f3a") == {"7f3a" + "0" * 28: "lone \ud83d"}
    assert store.num_pending == 2
    redis_server.start()

    async def written() -> bool:
        return await other.get_many([b"a"]) == [b"1"] and bool(await other.find_originals(b"t", "7f3a"))

    await eventually(written)
    await eventually(lambda: _is_done(store))
    await store.aclose()
    await other.aclose()


async def test_what_is_to_be_slid_is_bounded_while_redis_is_lost(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.proxy.state.fronted._MAX_TOUCHED", 3)
    now_s = 0.0
    store = make(redis_server, clock=lambda: now_s)
    keys = [b"%d" % number for number in range(10)]
    await store.put_new(dict.fromkeys(keys, b"x"))
    redis_server.kill()
    now_s = 300.0
    for key in keys:
        await store.get_many([key])
    assert len(store._to_touch) == 3
    await store.aclose()


async def test_what_another_process_wrote_meanwhile_stays_there_and_ours_here(redis_server: RedisServer) -> None:
    store, other = make(redis_server), RedisStore(redis_server.url, timeout_s=5.0)
    redis_server.kill()
    await store.put_new({b"a": b"ours"})
    redis_server.start()
    await other.put_new({b"a": b"theirs"})
    await eventually(lambda: _is_done(store))
    assert await other.get_many([b"a"]) == [b"theirs"]
    assert await store.get_many([b"a"]) == [b"ours"]
    await store.aclose()
    await other.aclose()


async def _is_done(store: FrontedStore) -> bool:
    return store.num_pending == 0


async def test_what_is_kept_for_later_is_bounded(redis_server: RedisServer) -> None:
    store = make(redis_server, max_pending_bytes=1000)
    redis_server.kill()
    for number in range(100):
        await store.put_new({b"%032d" % number: b"x" * 68})
        await store.put_originals(b"t", {f"{number:032x}": "y" * 500})
    assert store.num_pending == 10
    redis_server.start()
    await eventually(lambda: _is_done(store))
    await store.aclose()
    other = RedisStore(redis_server.url, timeout_s=5.0)
    assert (await other.get_many([b"%032d" % number for number in range(100)])).count(b"x" * 68) == 10
    await other.aclose()


async def test_a_redis_that_comes_back_empty_gets_live_records_again(redis_server: RedisServer) -> None:
    store, other = make(redis_server), RedisStore(redis_server.url, timeout_s=5.0)
    await store.put_new({b"a": b"1"})
    redis_server.kill()
    with pytest.raises(StateError):
        await store.get_many([b"unknown"])
    redis_server.start()
    redis_server.command("FLUSHALL")

    async def restored() -> bool:
        try:
            await store.get_many([b"a", b"unknown"])
        except StateError:
            return False
        return await other.get_many([b"a"]) == [b"1"]

    await eventually(restored)
    await store.aclose()
    await other.aclose()


async def test_what_is_used_here_alone_does_not_expire_there(redis_server: RedisServer) -> None:
    now = 0.0
    store = make(redis_server, clock=lambda: now)
    await store.put_new({b"a": b"1", b"b": b"2"})
    for key in ("a", "b"):
        redis_server.command("EXPIRE", f"sluice:1:r:{key}", "5")
    await store.get_many([b"a"])
    await asyncio.sleep(0.1)
    assert redis_server.command("TTL", "sluice:1:r:a") in (b":5\r\n", b":4\r\n")
    now += 251.0  # a quarter of its life
    await store.get_many([b"a"])

    async def slid() -> bool:
        return int(redis_server.command("TTL", "sluice:1:r:a")[1:]) > 500

    await eventually(slid)
    assert int(redis_server.command("TTL", "sluice:1:r:b")[1:]) <= 5
    await store.aclose()


async def test_without_redis_at_the_start_the_secret_is_ours_and_stays(redis_server: RedisServer) -> None:
    store = make(redis_server)
    redis_server.kill()
    secret = await store.secret()
    assert len(secret) == 32
    redis_server.start()
    await store.put_new({b"a": b"1"})
    assert await store.secret() == secret
    await store.aclose()


async def test_the_secret_of_a_lost_redis_is_remembered(redis_server: RedisServer) -> None:
    store, other = make(redis_server), RedisStore(redis_server.url, timeout_s=5.0)
    secret = await store.secret()
    assert secret == await other.secret()
    redis_server.kill()
    assert await store.secret() == secret
    await store.aclose()
    await other.aclose()


async def test_what_a_request_gave_up_waiting_for_stands_all_the_same(redis_server: RedisServer) -> None:
    store, other = make(redis_server), RedisStore(redis_server.url, timeout_s=5.0)
    await store.put_new({b"a": b"1"})
    redis_server.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.put_new({b"b": b"2"})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.put_originals(b"t", {"7f3a" + "0" * 28: "text"})
    assert await store.get_many([b"a", b"b"]) == [b"1", b"2"]
    redis_server.resume()

    async def written() -> bool:
        return await other.get_many([b"b"]) == [b"2"] and bool(await other.find_originals(b"t", "7f3a"))

    await eventually(written)
    await store.aclose()
    await other.aclose()


async def test_a_full_redis_is_written_to_when_it_has_room(redis_server: RedisServer) -> None:
    store, other = make(redis_server), RedisStore(redis_server.url, timeout_s=5.0)
    await store.put_new({b"a": b"1"})
    redis_server.fill()
    assert await store.put_new({b"b": b"2"}) == {b"b": b"2"}
    assert await store.get_many([b"a", b"b", b"c"]) == [b"1", b"2", None], (
        "what it holds can be read, and a miss is one"
    )
    assert store.num_pending == 1
    redis_server.empty()

    async def written() -> bool:
        return await other.get_many([b"b"]) == [b"2"]

    await eventually(written)
    await eventually(lambda: _is_done(store))
    await store.aclose()
    await other.aclose()
