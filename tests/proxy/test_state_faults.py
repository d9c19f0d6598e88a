"""A compressor or a store that fails, and a proxy that is started again: never the request's cost, nor the prefix's."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest

from sluice.compressor import Compressor, MemoryStore, StateError
from sluice.compressor import advance as advance_module
from sluice.proxy.access.keys import make_key
from tests.proxy.servers import ScriptedUpstream, completion, proxy, reading_twice
from tests.redis_server import RedisServer

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- a compressor and a store that fail ----------------------------------------------------------------------------


class BrokenCompressor(Compressor):
    async def compress(self, messages: Sequence[bytes], **_: Any) -> Any:
        raise RuntimeError(f"cannot read {messages!r}")


class MiscountingCompressor(Compressor):
    async def compress(self, messages: Sequence[bytes], **options: Any) -> Any:
        compressed = await super().compress(messages, **options)
        del compressed.messages[0]
        return compressed


class HungStore(MemoryStore):
    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        await asyncio.Event().wait()
        raise AssertionError


class SlowStore(MemoryStore):
    wait_s = 0.0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        await asyncio.sleep(self.wait_s)
        return await super().get_many(keys)


class DeadStore(MemoryStore):
    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        raise StateError("gone")

    async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        raise StateError("gone")

    async def secret(self) -> bytes:
        raise StateError("gone")

    async def ping(self) -> None:
        raise StateError("gone")


@pytest.mark.parametrize("broken", [BrokenCompressor, MiscountingCompressor])
async def test_a_broken_compressor_costs_no_request_and_logs_no_content(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, broken: type[Compressor]
) -> None:
    caplog.set_level(logging.DEBUG, "sluice")
    body = json.dumps({"model": "gpt-4o", "messages": reading_twice()}).encode()
    async with proxy(upstream.url, app_options={"compressor": broken(MemoryStore())}) as client:
        answer = await client.post("/v1/chat/completions", content=body, headers={"authorization": "Bearer sk-secret"})
        metrics = (await client.get("/metrics")).text
    assert answer.json() == completion()
    assert upstream.last.body == body
    assert answer.headers["x-sluice-bypass"] == "error"
    assert answer.headers["x-sluice-tokens-in"] == answer.headers["x-sluice-tokens-out"]
    assert 'sluice_bypasses_total{reason="error"} 1.0' in metrics
    assert "compression_failed" in caplog.text
    assert "value_1" not in caplog.text
    assert "sk-secret" not in caplog.text


async def test_a_hung_store_hangs_no_request(upstream: ScriptedUpstream) -> None:
    body = json.dumps({"model": "gpt-4o", "messages": reading_twice()}).encode()
    for limit, bypass in (({"redis_timeout_s": 0.1}, "state"), ({"compress_timeout_s": 0.1}, "timeout")):
        async with proxy(upstream.url, app_options={"store": HungStore()}, **limit) as client:
            answer = await client.post("/v1/chat/completions", content=body)
        assert (answer.status_code, answer.headers["x-sluice-bypass"]) == (200, bypass)
        assert upstream.last.body == body


async def test_where_store_and_decision_are_both_slow_the_prefix_stays(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that is out of breath: what went out before goes out again, and nothing new is dropped."""
    turns, store = turns_of(long_conversation()), SlowStore()
    async with proxy(upstream.url, app_options={"store": store}) as client:
        before = await converse(client, upstream, turns[2])
    decide, ends = advance_module.decide, threading.Event()

    def slowly(*arguments: Any) -> Any:
        ends.wait(20)
        return decide(*arguments)

    monkeypatch.setattr(advance_module, "decide", slowly)
    store.wait_s = 0.3
    # In a process of its own as far as that counts: nothing of the conversation is held there.
    async with proxy(upstream.url, app_options={"store": store}, compress_timeout_s=2.0) as client:
        answer = await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": turns[3]})
        ends.set()
    during = [json.dumps(message).encode() for message in upstream.last.json["messages"]]
    assert answer.headers["x-sluice-bypass"] == "timeout"
    assert any(b"as in message 3" in message for message in before)
    assert during == [*before, *(json.dumps(message).encode() for message in turns[3][len(before) :])]


async def test_a_dead_store_costs_no_request(upstream: ScriptedUpstream) -> None:
    body = json.dumps({"model": "gpt-4o", "messages": reading_twice()}).encode()
    async with proxy(upstream.url, app_options={"store": DeadStore()}) as client:
        answer = await client.post("/v1/chat/completions", content=body)
        ready = await client.get("/readyz")
        recalled = await client.get("/v1/recall/7f3a")
    assert (answer.status_code, answer.headers["x-sluice-bypass"]) == (200, "state")
    assert upstream.exchanges[0].body == body
    assert (ready.status_code, ready.json()["store"], ready.json()["upstreams"]) == (503, "gone", {"default": "ok"})
    assert error_of(recalled) == (503, "state_unavailable")


# --- Redis that fails, and a proxy that is started again -------------------------------------------------------------


async def converse(client: httpx.AsyncClient, upstream: ScriptedUpstream, messages: list[Any]) -> list[bytes]:
    """Send one turn; the forwarded messages, re-encoded one by one."""
    answer = await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": messages})
    assert answer.status_code == 200
    return [json.dumps(message).encode() for message in upstream.last.json["messages"]]


def turns_of(messages: list[Any]) -> list[list[Any]]:
    """The requests of a conversation: each ends after a tool result."""
    return [messages[: end + 1] for end, message in enumerate(messages) if message["role"] == "tool"]


def long_conversation() -> list[Any]:
    messages = reading_twice()
    for number in range(3, 9):
        again = json.loads(json.dumps(messages[3:5]).replace("call_2", f"call_{number}"))
        messages += again
    return messages


def num_keys(server: RedisServer) -> int:
    return int(server.command("DBSIZE").strip()[1:])


@pytest.mark.redis
async def test_redis_killed_and_restarted_in_mid_conversation_rewrites_nothing(
    upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    turns = turns_of(long_conversation())
    forwarded: list[list[bytes]] = []
    async with proxy(upstream.url, redis_url=redis_server.url) as client:
        for number, messages in enumerate(turns):
            if number == 3:
                num_before = num_keys(redis_server)
                redis_server.kill()
            if number == 6:
                redis_server.start()
            forwarded.append(await converse(client, upstream, messages))
    for earlier, later in pairwise(forwarded):
        assert later[: len(earlier)] == earlier
    assert any(b"as in message 3" in message for message in forwarded[2])
    assert num_keys(redis_server) > num_before > 0


@pytest.mark.redis
async def test_redis_that_hangs_costs_no_request(upstream: ScriptedUpstream, redis_server: RedisServer) -> None:
    turns = turns_of(long_conversation())
    async with proxy(upstream.url, redis_url=redis_server.url, redis_timeout_s=1.0) as client:
        before = await converse(client, upstream, turns[2])
        redis_server.hang()
        during = await converse(client, upstream, turns[3])
        redis_server.resume()
    assert any(b"as in message 3" in message for message in before)
    assert during[: len(before)] == before


@pytest.mark.redis
async def test_a_proxy_started_again_on_the_same_redis_goes_on_as_before(
    upstream: ScriptedUpstream, redis_url: str
) -> None:
    turns = turns_of(long_conversation())
    forwarded = []
    for messages in turns:
        async with proxy(upstream.url, redis_url=redis_url) as client:
            forwarded.append(await converse(client, upstream, messages))
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["store"]) == (200, "ok")
    for earlier, later in pairwise(forwarded):
        assert later[: len(earlier)] == earlier
    assert b"as in message 3" in forwarded[-1][4]


@pytest.mark.redis
async def test_a_proxy_that_starts_without_its_redis_serves(
    upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    redis_server.kill()
    async with proxy(upstream.url, redis_url=redis_server.url) as client:
        first = await converse(client, upstream, reading_twice()[:3])
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["store"].startswith("Redis")
    assert len(first) == 3


@pytest.mark.redis
async def test_what_is_lost_is_said_once_and_that_it_is_back_once(
    upstream: ScriptedUpstream, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sluice")
    key, text = make_key("ann", requests_per_minute=6_000)
    async with proxy(upstream.url, redis_url=redis_server.url, keys=(key,)) as client:

        async def ask(said: str) -> None:
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": said}]}
            assert (await client.post("/v1/chat/completions", json=body, headers={"x-sluice-key": text})).is_success

        await ask("first")
        redis_server.kill()
        for number in range(12):
            await ask(f"while it is lost, {number}")
        redis_server.start()
        async with asyncio.timeout(30):
            while "state store answers again" not in caplog.text or "limits_checked_again" not in caplog.text:
                await ask("back?")
                await asyncio.sleep(0.1)
    # Three that are lost (records, limits, keys' spending), each at most once, and their coming back.
    assert len(caplog.records) <= 6, caplog.text
