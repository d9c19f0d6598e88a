"""The client's side of HTTP/1.1, against servers that write their bytes themselves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from sluice.proxy.errors import (
    UpstreamConnectTimeoutError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamPoolTimeoutError,
    UpstreamReadTimeoutError,
    UpstreamUnreachableError,
    UpstreamWriteTimeoutError,
)
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


async def test_a_request_is_written_as_it_was_given() -> None:
    async with serving(always(OK), path="/api") as served:
        answer = await served.upstream.send("POST", "/v1/x?q=%20", [(b"x-a", b"1"), (b"x-a", b"2")], b"{}")
        assert (answer.status, await whole(answer)) == (200, b"hello")
        host = served.upstream.origin.removeprefix("http://").removesuffix("/api").encode()
        head = b"POST /api/v1/x?q=%20 HTTP/1.1\r\nhost: " + host + b"\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\n"
        assert served.peers[0].requests == [(head, b"{}")]


@pytest.mark.parametrize(("method", "length"), [("POST", b"content-length: 0"), ("GET", None), ("DELETE", b": 0")])
async def test_a_request_without_a_body_says_so_where_it_could_have_one(method: str, length: bytes | None) -> None:
    async with serving(always(OK)) as served:
        await whole(await served.upstream.send(method, "/", []))
        head = served.peers[0].requests[0][0]
        assert (length in head) if length is not None else (b"content-length" not in head)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([OK], id="content-length"),
        pytest.param([CHUNKED, b"2\r\nhe\r\n", b"3;a=b\r\nllo\r\n", b"0\r\nx-trailer: 1\r\n\r\n"], id="chunked"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n", OK], id="1xx"),
        pytest.param([OK.replace(b"\r\n", b"\n")], id="bare line feeds"),
        pytest.param([OK[index : index + 1] for index in range(len(OK))], id="byte by byte"),
    ],
)
async def test_a_connection_is_used_again_once_its_answer_is_whole(answer: list[bytes]) -> None:
    async with serving(always(*answer)) as served:
        assert [await ask(served) for _ in range(3)] == [b"hello"] * 3
        assert len(served.peers) == 1
        assert len(served.peers[0].requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"], id="until it closes"),
        pytest.param([b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"], id="1.0"),
        pytest.param([b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"], id="close"),
    ],
)
async def test_a_connection_that_is_not_kept_is_not_used_again(answer: list[bytes]) -> None:
    async with serving(once(*answer)) as served:
        assert [await ask(served) for _ in range(2)] == [b"hello"] * 2
        assert len(served.peers) == 2


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", b"\x00\x01 nonsense"])
@pytest.mark.parametrize("is_at_once", [True, False])
async def test_what_nobody_asked_for_reaches_nobody(garbage: bytes, is_at_once: bool) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            if is_at_once:
                await peer.say(OK + garbage)
            else:
                await peer.say(OK)
                await asyncio.sleep(0.05)
                await peer.say(garbage)

    async with serving(play) as served:
        for _ in range(2):
            assert await ask(served) == b"hello"
            await asyncio.sleep(0.15)
        assert len(served.peers) == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_cannot_have_a_body_has_none(status: int) -> None:
    async with serving(always(b"HTTP/1.1 %d No\r\n\r\n" % status)) as served:
        assert [await ask(served) for _ in range(2)] == [b"", b""]
        assert len(served.peers) == 1


async def test_the_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    async with serving(always(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")) as served:
        for _ in range(2):
            answer = await served.upstream.send("HEAD", "/", [])
            assert answer.headers == [(b"content-length", b"5")]
            assert await whole(answer) == b""


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"], id="short"),
        pytest.param([CHUNKED, b"5\r\nhello\r\n"], id="no last chunk"),
    ],
)
async def test_what_came_before_a_connection_broke_comes_before_the_error(answer: list[bytes]) -> None:
    async with serving(once(*answer)) as served:
        found = await served.upstream.send("POST", "/", [], b"{}")
        assert await found.read() == b"hello"
        for _ in range(2):
            with pytest.raises(UpstreamDisconnectedError):
                await found.read()
        found.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
    ],
)
async def test_what_is_no_http_is_an_error_that_quotes_nothing(answer: bytes) -> None:
    async with serving(always(answer)) as served:
        with pytest.raises(UpstreamError, match="gave no valid HTTP answer"):
            await ask(served)
        assert await served.peers[0].is_served()


async def test_a_bad_chunk_breaks_the_answer_off() -> None:
    async with serving(always(CHUNKED + b"5\r\nhello\r\nzz\r\n")) as served:
        answer = await served.upstream.send("POST", "/", [], b"{}")
        with pytest.raises(UpstreamError, match="gave no valid HTTP answer"):
            await whole(answer)


async def test_a_kept_connection_that_closed_is_told_from_one_that_broke() -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        if len(served.peers) == 1:
            await peer.say(OK)
            await peer.request()

    async with serving(play) as served:
        assert await ask(served) == b"hello"
        for was_stale in (True, False):
            with pytest.raises(UpstreamDisconnectedError) as caught:
                await ask(served)
            assert caught.value.was_stale is was_stale


async def test_hanging_up_before_the_head_closes_the_connection() -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    async with serving(play, HttpLimits(max_connections=1, pool_timeout_s=5)) as served:
        task = asyncio.create_task(ask(served))
        await served.came.wait()
        await served.peers[0].asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await served.peers[0].is_served()
        assert not served.upstream._slots.locked()


async def test_closing_an_answer_before_its_end_closes_the_connection() -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED + b"5\r\nhello\r\n")
        await peer.until_gone()

    async with serving(play, HttpLimits(max_connections=1)) as served:
        for number in (1, 2):
            answer = await served.upstream.send("POST", "/", [], b"{}")
            assert await answer.read() == b"hello"
            answer.close()
            answer.close()
            assert len(served.peers) == number, "it was not used again"


async def test_events_come_one_by_one_as_they_are_sent() -> None:
    taken = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        for _ in range(5):
            await peer.say(b"3\r\nabc\r\n")
            await taken.wait()  # the next is not sent before this one was handed on
            taken.clear()
        await peer.say(b"0\r\n\r\n")

    async with serving(play) as served:
        answer = await served.upstream.send("POST", "/", [], b"{}")
        async with asyncio.timeout(5):
            for _ in range(5):
                assert await answer.read() == b"abc"
                taken.set()
            assert await answer.read() == b""
        answer.close()


async def test_what_nobody_reads_holds_the_upstream_back() -> None:
    num_sent = 0
    num_all = 64 * 2**20

    async def play(peer: Peer) -> None:
        nonlocal num_sent
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % num_all)
        while num_sent < num_all:
            await peer.say(b"x" * 65536)
            num_sent += 65536

    async with serving(play) as served:
        answer = await served.upstream.send("POST", "/", [], b"{}")
        await asyncio.sleep(0.5)
        assert num_sent < num_all / 2, "the rest waits in the upstream"
        num_read = 0
        while part := await answer.read():
            assert len(part) < 4 * 2**20, "what is held is bounded"
            num_read += len(part)
        assert num_read == num_all
        answer.close()


async def test_a_large_body_is_sent_whole() -> None:
    body = bytes(range(256)) * 20_000
    async with serving(always(OK)) as served:
        assert await ask(served, body) == b"hello"
        assert await ask(served, body) == b"hello"
        assert [sent for _, sent in served.peers[0].requests] == [body, body]


async def test_an_answer_that_comes_before_the_body_is_taken_is_handed_on() -> None:
    async def play(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")
        await peer.until_gone()

    async with serving(play) as served:
        answer = await served.upstream.send("POST", "/", [], b"x" * 30_000_000)
        assert (answer.status, await whole(answer)) == (413, b"large")
        assert await served.peers[0].is_served(), "a connection with half a request on it is not used again"


async def test_silence_runs_into_the_limit_before_the_head_and_behind_it() -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        if len(served.peers) > 1:
            await peer.say(CHUNKED + b"5\r\nhello\r\n")
        await peer.until_gone()

    async with serving(play, HttpLimits(read_timeout_s=0.2)) as served:
        with pytest.raises(UpstreamReadTimeoutError):
            await ask(served)
        answer = await served.upstream.send("POST", "/", [], b"{}")
        assert await answer.read() == b"hello"
        with pytest.raises(UpstreamReadTimeoutError):
            await answer.read()
        answer.close()


async def test_an_upstream_that_is_slow_but_not_silent_is_waited_for() -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        for _ in range(8):
            await asyncio.sleep(0.1)
            await peer.say(b"1\r\nx\r\n")
        await peer.say(b"0\r\n\r\n")

    async with serving(play, HttpLimits(read_timeout_s=0.4)) as served:
        assert await ask(served) == b"x" * 8


async def test_an_upstream_that_takes_nothing_runs_into_the_write_limit() -> None:
    async def play(peer: Peer) -> None:
        await asyncio.sleep(1)

    async with serving(play, HttpLimits(write_timeout_s=0.3)) as served:
        with pytest.raises(UpstreamWriteTimeoutError):
            await ask(served, b"x" * 30_000_000)


async def test_no_connection_is_told_from_no_free_one() -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    async with serving(play, HttpLimits(max_connections=1, pool_timeout_s=0.1)) as served:
        task = asyncio.create_task(ask(served))
        await asyncio.sleep(0.05)
        with pytest.raises(UpstreamPoolTimeoutError):
            await ask(served)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(UpstreamUnreachableError):
        await ask(served)
    # An address that is set aside for documentation: whoever routes it nowhere says so, or says nothing.
    nowhere = HttpUpstream("http://192.0.2.1:9", HttpLimits(connect_timeout_s=0.2))
    with pytest.raises((UpstreamConnectTimeoutError, UpstreamUnreachableError)):
        await nowhere.send("GET", "/", [])


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/a b", []), ("/a\r\nx: y", []), ("/", [(b"a", b"b\r\nc: d")]), ("/", [(b"a", b"b\nc: d")])],
)
async def test_a_head_that_would_say_more_is_not_sent(path: str, headers: list[tuple[bytes, bytes]]) -> None:
    async with serving(always(OK)) as served:
        with pytest.raises(UpstreamError, match="line break or a space"):
            await served.upstream.send("GET", path, headers)
        assert not served.peers


async def test_tls_is_spoken_and_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with serving(always(OK), tls=context) as served:
        with pytest.raises(UpstreamUnreachableError, match="certificate"):
            await ask(served)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    body = b"x" * 3_000_000
    async with serving(always(OK), tls=context) as served:
        assert [await ask(served, body) for _ in range(2)] == [b"hello"] * 2
        assert [sent for _, sent in served.peers[0].requests] == [body, body]
    async with serving(once(CHUNKED, b"5\r\nhello\r\n"), tls=context) as served:
        with pytest.raises(UpstreamDisconnectedError):
            await ask(served)


async def test_connections_that_nobody_uses_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.proxy.upstreams.pool.KEEP_ALIVE_S", 0.1)
    async with serving(always(OK)) as served:
        await ask(served)
        assert await served.peers[0].is_served()
        assert await ask(served) == b"hello"
        assert len(served.peers) == 2
