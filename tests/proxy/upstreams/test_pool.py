"""Which connections are used again, and when they are closed."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from sluice.proxy.errors import (
    UpstreamDisconnectedError,
    UpstreamUnreachableError,
)
from sluice.proxy.upstreams import HttpLimits
from tests.proxy.upstreams.peers import CHUNKED, OK, Peer, always, ask, once, serving


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
