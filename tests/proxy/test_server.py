"""The HTTP server as the proxy runs it, asked by bare sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sluice.proxy.serve import bind
from sluice.proxy.server import MAX_HEAD_BYTES, Server, server_config
from sluice.proxy.settings import Settings


@asynccontextmanager
async def served(answers: bool | str = True) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """A port, and the requests that reached the application there; it answers at once, to the whole, or never."""
    reached: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        reached.append(scope)
        while answers is not True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if answers == "to the whole" and not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    server = Server(server_config(app, Settings(upstream="http://127.0.0.1:1")))
    with bind("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1], reached
        server.end()
        await serving


async def ask(port: int, *parts: bytes) -> bytes:
    """What is answered until the connection is closed, or to the first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read(4096)
    except ConnectionError:
        return b"closed"
    finally:
        writer.close()


async def test_a_head_without_end_is_refused_and_reaches_nobody() -> None:
    line = b"x-a: " + b"a" * 65_000 + b"\r\n"
    endless = [b"GET / HTTP/1.1\r\nhost: localhost\r\n", *(line for _ in range(MAX_HEAD_BYTES // 60_000 + 20))]
    one_value = [b"GET / HTTP/1.1\r\nx-a: ", *(b"a" * 65_000 for _ in range(MAX_HEAD_BYTES // 60_000 + 20))]
    async with served() as (port, reached):
        for parts in (endless, one_value):
            answer = await ask(port, *parts)
            assert answer == b"closed" or answer.startswith(b"HTTP/1.1 400 ")
        assert reached == []
        assert (await ask(port, *endless[:8], b"\r\n")).startswith(b"HTTP/1.1 200 ")
        assert len(reached) == 1


@pytest.mark.parametrize("line", [b"x-a: " + b"a" * 65_000 + b"\r\n", b"a" * 65_000])
async def test_trailers_without_end_are_cut_off_and_none_is_kept(line: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    async with served(answers=False) as (port, reached):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"3\r\nabc\r\n0\r\nx-b: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(MAX_HEAD_BYTES // 60_000 + 20):
                writer.write(line)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        assert [name for name, _ in reached[0]["headers"]] == [b"host", b"transfer-encoding"]


async def test_a_few_trailers_and_a_long_body_pass() -> None:
    head = b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = [b"10000\r\n" + b"a" * 0x10000 + b"\r\n"] * 40
    async with served(answers="to the whole") as (port, reached):
        answer = await ask(port, head, *chunks, b"0\r\nx-a: b\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert (b"x-a", b"b") not in reached[0]["headers"]


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 3\r\ntransfer-encoding: chunked",
        b"content-length: 3\r\ncontent-length: 4",
        b"content-length: +3",
        b"x-a : b",
        b"x-a: b\r\n x-c: d",
        b"x-a: b\nx-sluice-key: c\0",
    ],
)
async def test_a_request_whose_end_can_be_told_in_two_ways_is_refused(head: bytes) -> None:
    async with served() as (port, reached):
        answer = await ask(port, b"POST / HTTP/1.1\r\nhost: localhost\r\n" + head + b"\r\n\r\nabc")
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert reached == []
