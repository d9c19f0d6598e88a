"""Redis that is slow, dead, restarted or asked by a request that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest

from sluice.compressor import StateError
from sluice.compressor.errors import StateRefusedError
from sluice.proxy.breaker import Breaker
from sluice.proxy.state.redis import RedisStore
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


async def test_every_operation_of_a_dead_redis_is_a_state_error(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, breaker=Breaker(max_failures=1000))
    redis_server.kill()
    for operation in (
        lambda: store.get_many([b"a"]),
        lambda: store.put_new({b"a": b"1"}),
        lambda: store.put_originals(b"t", {"0" * 32: "x"}),
        lambda: store.find_originals(b"t", "0000"),
        lambda: store.touch([b"a"]),
        store.secret,
        store.ping,
    ):
        with pytest.raises(StateError, match="Redis"):
            await operation()
    await store.aclose()


async def test_a_hung_redis_is_given_up_in_time_and_then_not_asked(redis_server: RedisServer) -> None:
    now = 0.0
    patient = RedisStore(redis_server.url, timeout_s=5.0)
    await patient.put_new({b"a": b"1"})
    await patient.aclose()
    store = RedisStore(redis_server.url, timeout_s=0.2, breaker=Breaker(retry_s=9.0, clock=lambda: now))
    redis_server.hang()
    started = time.monotonic()
    for _ in range(50):
        with pytest.raises(StateError):
            await store.get_many([b"a"])
    assert time.monotonic() - started < 50 * 0.2
    assert store.breaker.is_open
    redis_server.resume()
    found: list[bytes | None] = []
    for _ in range(50):  # a slow machine may need more than one attempt
        now += 9.0
        with contextlib.suppress(StateError):
            found = await store.get_many([b"a"])
            break
    assert found == [b"1"]
    assert not store.breaker.is_open
    await store.aclose()


async def test_a_redis_that_was_restarted_between_two_operations_is_not_noticed(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, timeout_s=5.0)
    await store.put_new({b"a": b"1"})
    redis_server.kill()
    redis_server.start()
    assert await store.get_many([b"a"]) == [b"1"]
    await store.aclose()


async def test_a_request_that_goes_away_leaves_no_reply_for_another(redis_url: str) -> None:
    store = RedisStore(redis_url, timeout_s=5.0)
    await store.put_new({b"%d" % number: b"record %d" % number for number in range(200)})

    async def look_up(number: int) -> None:
        assert await store.get_many([b"%d" % number]) == [b"record %d" % number]

    for attempt in range(60):
        tasks = [asyncio.create_task(look_up(number)) for number in range(20)]
        for _ in range(attempt % 12):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [
            outcome for outcome in outcomes if outcome is not None and not isinstance(outcome, asyncio.CancelledError)
        ]
    await store.aclose()


async def test_what_redis_refuses_is_a_state_error(redis_url: str, shared_redis: RedisServer) -> None:
    store = RedisStore(redis_url)
    await store.put_new({b"a": b"1"})
    shared_redis.command("DEL", "sluice:1:r:a")
    shared_redis.command("HSET", "sluice:1:r:a", "x", "y")
    with pytest.raises(StateError, match="WRONGTYPE"):
        await store.get_many([b"a"])
    await store.aclose()


async def test_keys_carry_prefix_version_and_expiry_and_no_tenant_reads_like_a_credential(
    redis_url: str, shared_redis: RedisServer
) -> None:
    store = RedisStore(redis_url, ttl_s=1000)
    await store.put_new({b"a": b"1"})
    await store.put_originals(b"t", {"0" * 32: "x"})
    await store.secret()
    keys = [line for line in shared_redis.command("KEYS", "*").split(b"\r\n") if line.startswith(b"sluice")]
    assert sorted(keys) == [b"sluice:1:o:t:0000", b"sluice:1:r:a", b"sluice:1:secret"]
    assert shared_redis.command("TTL", "sluice:1:r:a") in (b":1000\r\n", b":999\r\n")
    assert shared_redis.command("TTL", "sluice:1:o:t:0000") in (b":1000\r\n", b":999\r\n")
    assert shared_redis.command("TTL", "sluice:1:secret") == b":-1\r\n"
    await store.aclose()


async def test_a_wrong_password_is_a_state_error(redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "SET", "requirepass", "right")
    store = RedisStore(redis_server.url.replace("redis://", "redis://:wrong@"))
    with pytest.raises(StateError) as caught:
        await store.ping()
    assert "wrong@" not in str(caught.value)
    await store.aclose()


@pytest.mark.parametrize("refuse", [RedisServer.fill, RedisServer.demote, RedisServer.lose_disk])
async def test_a_redis_that_takes_no_writes_is_read_and_not_given_up(
    redis_server: RedisServer, refuse: Callable[[RedisServer], None]
) -> None:
    store = RedisStore(redis_server.url, timeout_s=5.0)
    secret = await store.secret()
    await store.put_new({b"a": b"1"})
    await store.put_originals(b"t", {"0" * 32: "x"})
    refuse(redis_server)
    for _ in range(5):
        with pytest.raises(StateRefusedError):
            await store.put_new({b"b": b"2"})
        with pytest.raises(StateRefusedError):
            await store.put_originals(b"t", {"0" * 32: "y"})
        assert await store.get_many([b"a", b"b"]) == [b"1", None]
    assert await store.find_originals(b"t", "0000") == {"0" * 32: "x"}
    assert await store.secret() == secret
    assert not store.breaker.is_open
    await store.aclose()


async def test_a_full_redis_without_a_secret_gives_none(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, timeout_s=5.0)
    redis_server.fill()
    with pytest.raises(StateRefusedError):
        await store.secret()
    await store.aclose()


async def test_a_process_that_had_no_time_does_not_take_redis_for_late(redis_url: str) -> None:
    patient = RedisStore(redis_url, timeout_s=5.0)
    await patient.put_new({b"a": b"1"})
    await patient.aclose()
    store = RedisStore(redis_url, timeout_s=0.3)
    for _ in range(3):
        asking = asyncio.create_task(store.get_many([b"a"]))
        await asyncio.sleep(0)
        time.sleep(0.6)  # noqa: ASYNC251 - the whole loop is held up, as by other work on a busy machine
        assert await asking == [b"1"]
    await store.aclose()
