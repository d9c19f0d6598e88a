"""What comes over HTTP/1.1, against servers that write their bytes themselves."""

from __future__ import annotations

import asyncio

import pytest

from sluice.proxy.errors import (
    UpstreamDisconnectedError,
    UpstreamError,
)
from sluice.proxy.upstreams import HttpLimits
from sluice.proxy.upstreams.connection import Connection
from tests.proxy.upstreams.peers import CHUNKED, OK, Peer, always, ask, once, serving, whole


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
            assert await served.peers[-1].is_served(), "it is hung up on"
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


async def test_who_gives_up_on_an_answer_that_was_whole_leaves_the_connection_to_its_next_user() -> None:
    loop = asyncio.get_running_loop()
    coming = asyncio.Event()

    class Announcing(Connection):
        def on_headers_complete(self) -> None:
            coming.set()  # so that the next user runs before the first hears of its answer
            super().on_headers_complete()

    async def follow() -> bytes:
        await coming.wait()
        first.cancel()
        return await whole(await connection.ask(b"GET /b HTTP/1.1\r\n\r\n", b""))

    async with serving(always(OK)) as served:
        port = int(served.upstream.origin.rpartition(":")[2])
        _, connection = await loop.create_connection(
            lambda: Announcing(served.upstream.origin, HttpLimits(), lambda _: None, lambda _: None), "127.0.0.1", port
        )
        following = loop.create_task(follow())
        await asyncio.sleep(0)
        first = loop.create_task(connection.ask(b"GET /a HTTP/1.1\r\n\r\n", b""))
        with pytest.raises(asyncio.CancelledError):
            await first
        try:
            async with asyncio.timeout(5):
                assert await following == b"hello"
        finally:
            connection.abort()


@pytest.mark.parametrize("said", [b"", CHUNKED + b"5\r\nhello\r\n"])
async def test_who_waits_for_an_answer_is_told_when_the_connection_is_closed_here(said: bytes) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.say(said)
        await peer.until_gone()

    async with serving(play) as served:
        asking = asyncio.create_task(ask(served))
        await served.came.wait()
        await served.peers[0].asked.wait()
        await asyncio.sleep(0.05)
        await served.upstream.aclose()
        async with asyncio.timeout(5):
            with pytest.raises(UpstreamError, match="closed here"):
                await asking
