"""What goes wrong around a request never costs the request; what cannot be served gets a clear error."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI

from sluice.compressor import Compressor, MemoryStore, StateError
from sluice.compressor import advance as advance_module
from sluice.proxy.access.keys import make_key
from tests.proxy.servers import Exchange, ScriptedUpstream, chunk, completion, proxy, reading_twice
from tests.redis_server import RedisServer

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- upstreams that fail ---------------------------------------------------------------------------------------------


async def test_an_upstream_that_refuses_is_502() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with proxy(f"http://127.0.0.1:{port}") as client:
        answer = await client.post("/v1/chat/completions", json=BODY)
        assert error_of(answer) == (502, "upstream_unreachable")
        assert f"127.0.0.1:{port}" in answer.json()["error"]["message"]
        assert error_of(await client.get("/v1/models")) == (502, "upstream_unreachable")


async def test_an_upstream_that_does_not_exist_is_502() -> None:
    async with proxy("http://no-such-host.invalid") as client:
        assert error_of(await client.post("/v1/chat/completions", json=BODY)) == (502, "upstream_unreachable")


async def test_an_upstream_that_accepts_no_connection_in_time_is_504() -> None:
    with socket.socket() as listener:  # its backlog is full: further connections are neither taken nor refused
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        async with proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout_s=0.3) as client:
            answer = await client.post("/v1/chat/completions", json=BODY)
        for filler in fillers:
            filler.close()
    assert error_of(answer) == (504, "upstream_connect_timeout")
    assert "connect_timeout_s" in answer.json()["error"]["message"]


async def test_an_upstream_that_never_answers_is_504(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    upstream.answer = answer
    async with proxy(upstream.url, read_timeout_s=0.3) as client:
        assert error_of(await client.post("/v1/chat/completions", json=BODY)) == (504, "upstream_read_timeout")


async def test_an_upstream_that_does_not_take_the_body_is_504() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    done = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    big = {"model": "m", "messages": [{"role": "user", "content": "x" * 20_000_000}]}
    async with proxy(f"http://127.0.0.1:{port}", write_timeout_s=0.3, mode="off") as client:
        answer = await client.post("/v1/chat/completions", json=big, headers={"x-sluice-mode": "off"})
    done.set()
    server.close()
    await server.wait_closed()
    assert error_of(answer) == (504, "upstream_write_timeout")


async def test_waiting_for_a_free_connection_is_bounded(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    upstream.answer = answer
    async with proxy(upstream.url, max_connections=1, pool_timeout_s=0.3) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
        await upstream.arrived.wait()
        assert error_of(await client.post("/v1/chat/completions", json=BODY)) == (504, "upstream_pool_timeout")
        first.cancel()
        await upstream.last.hung_up.wait()
        # The connection of the client that went is free again.
        upstream.answer = ScriptedUpstream().answer
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200


async def test_an_upstream_that_hangs_up_without_an_answer_is_502() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    async with proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        answer = await client.post("/v1/chat/completions", json=BODY)
    server.close()
    assert error_of(answer) == (502, "upstream_disconnected")


@pytest.mark.parametrize("fault", ["dies", "stalls"])
@pytest.mark.parametrize("cut", [b"", b'data: {"id": "half'])
async def test_a_stream_that_breaks_off_ends_with_one_error_event(
    upstream: ScriptedUpstream, fault: str, cut: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("one") + cut)
        if fault == "stalls":
            await asyncio.Event().wait()

    upstream.answer = answer
    async with proxy(upstream.url, read_timeout_s=0.5) as client:
        answer_ = await client.post("/v1/chat/completions", json={**BODY, "stream": True})
    assert answer_.status_code == 200
    assert answer_.text.startswith(chunk("one").decode())
    events = answer_.text.removeprefix(chunk("one").decode() + cut.decode()).strip().split("\n\n")
    assert len(events) == 1
    error = json.loads(events[0].removeprefix("data: "))["error"]
    assert error["code"] == {"dies": "upstream_disconnected", "stalls": "upstream_read_timeout"}[fault]
    assert answer_.text.endswith("\n\n")


async def test_the_openai_client_raises_on_a_stream_that_breaks_off(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("one"))

    upstream.answer = answer
    async with (
        proxy(upstream.url) as client,
        AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="sk", max_retries=0) as openai,
    ):
        stream = await openai.chat.completions.create(model="m", messages=BODY["messages"], stream=True)  # type: ignore[call-overload]
        events = aiter(stream)
        assert (await anext(events)).choices[0].delta.content == "one"
        with pytest.raises(APIError, match="hung up"):
            await anext(events)


async def test_a_compressed_stream_that_breaks_off_is_cut(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream", 200, (b"content-encoding", b"x-odd"))
        await exchange.part(b"odd")

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/chat/completions", json={**BODY, "stream": True})


async def test_a_plain_answer_that_breaks_off_is_cut_not_completed(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("application/json", 200, (b"content-length", b"1000"))
        await exchange.part(b'{"id": ')

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/chat/completions", json=BODY)


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
    async with proxy(upstream.url, app_options={"store": store}, compress_timeout_s=0.5) as client:
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


@pytest.mark.redis
async def test_redis_killed_and_restarted_in_mid_conversation_rewrites_nothing(
    upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    turns = turns_of(long_conversation())
    forwarded: list[list[bytes]] = []
    async with proxy(upstream.url, redis_url=redis_server.url) as client:
        for number, messages in enumerate(turns):
            if number == 3:
                redis_server.kill()
            if number == 6:
                redis_server.start()
            forwarded.append(await converse(client, upstream, messages))
    for earlier, later in pairwise(forwarded):
        assert later[: len(earlier)] == earlier
    assert any(b"as in message 3" in message for message in forwarded[2])
    assert len(redis_server.command("KEYS", "*")) > 10


@pytest.mark.redis
async def test_redis_that_hangs_costs_no_request(upstream: ScriptedUpstream, redis_server: RedisServer) -> None:
    turns = turns_of(long_conversation())
    async with proxy(upstream.url, redis_url=redis_server.url, redis_timeout_s=0.2) as client:
        before = await converse(client, upstream, turns[2])
        redis_server.hang()
        during = await converse(client, upstream, turns[3])
        redis_server.resume()
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


async def test_what_is_lost_is_said_once_and_that_it_is_back_once(
    upstream: ScriptedUpstream, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sluice")
    key, text = make_key("ann", requests_per_minute=6_000)
    async with proxy(upstream.url, redis_url=redis_server.url, redis_timeout_s=0.2, keys=(key,)) as client:

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


async def test_a_dead_upstream_is_a_warning_that_says_which_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sluice")
    async with proxy("http://127.0.0.1:1", max_retries=0) as client:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "my words"}]}
        await client.post("/v1/chat/completions", json=body)
    [record] = [record for record in caplog.records if record.getMessage().startswith("chat ")]
    assert record.levelno == logging.WARNING
    assert "http://127.0.0.1:1" in record.getMessage()
    assert "my words" not in caplog.text
