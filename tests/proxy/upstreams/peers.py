"""Servers that write the bytes of their answers themselves, and a client of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from sluice.proxy.upstreams import Answer, HttpLimits
from sluice.proxy.upstreams.http import HttpUpstream

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Peer:
    """One connection, seen from the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    served: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self) -> tuple[bytes, bytes]:
        """Read the next request: its head, its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next((line[15:] for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        self.requests.append((head, await self.reader.readexactly(int(length))))
        self.asked.set()
        return self.requests[-1]

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Wait until the client hangs up."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def is_served(self) -> bool:
        """Wait until what is played on it has come to its end."""
        async with asyncio.timeout(5):
            return await self.served.wait()


@dataclass
class Served:
    """A server, what came to it, and a client of it."""

    upstream: HttpUpstream
    peers: list[Peer]
    errors: list[BaseException]
    came: asyncio.Event
    """Whether anybody has connected."""


@asynccontextmanager
async def serving(
    play: Callable[[Peer], Awaitable[None]],
    limits: HttpLimits | None = None,
    tls: ssl.SSLContext | None = None,
    path: str = "",
) -> AsyncIterator[Served]:
    served = Served(None, [], [], came := asyncio.Event())  # type: ignore[arg-type]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        served.peers.append(peer)
        came.set()
        try:
            await play(peer)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            served.errors.append(error)
        finally:
            writer.close()
            peer.served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    host = "localhost" if tls is not None else "127.0.0.1"
    served.upstream = HttpUpstream(
        f"http{'s' if tls is not None else ''}://{host}:{port}{path}", limits or HttpLimits()
    )
    try:
        yield served
    finally:
        await served.upstream.aclose()
        server.close()


def always(*answer: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answer every request with these pieces, and keep the connection."""

    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            for piece in answer:
                await peer.say(piece)

    return play


def once(*answer: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answer one request with these pieces, and close the connection."""

    async def play(peer: Peer) -> None:
        await peer.request()
        for piece in answer:
            await peer.say(piece)

    return play


async def whole(answer: Answer) -> bytes:
    parts = []
    try:
        while part := await answer.read():
            parts.append(part)
        assert await answer.read() == b"", "the end stays the end"
    finally:
        answer.close()
    return b"".join(parts)


async def ask(served: Served, body: bytes = b"{}") -> bytes:
    return await whole(await served.upstream.send("POST", "/v1/x", [(b"a", b"b")], body))
