"""Upstreams that fail: what cannot be served gets a clear error, and the log says why."""

from __future__ import annotations

import asyncio
import json
import logging
import socket

import httpx
import pytest
from openai import APIError, AsyncOpenAI

from sluice.backend.free_port import free_port
from tests.proxy.servers import Exchange, ScriptedUpstream, chunk, proxy

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_an_upstream_that_refuses_is_502() -> None:
    port = free_port()
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
    # As a client reads it: what was cut off is an event of its own, and says nothing of the one that follows.
    events = answer_.text.removesuffix("\n\n").split("\n\n")
    assert events[1:-1] == ([cut.decode()] if cut else [])
    error = json.loads(events[-1].removeprefix("data: "))["error"]
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


async def test_a_dead_upstream_is_a_warning_that_says_which_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sluice")
    async with proxy("http://127.0.0.1:1", max_retries=0) as client:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "my words"}]}
        await client.post("/v1/chat/completions", json=body)
    [record] = [record for record in caplog.records if record.getMessage().startswith("chat ")]
    assert record.levelno == logging.WARNING
    assert "http://127.0.0.1:1" in record.getMessage()
    assert "my words" not in caplog.text
