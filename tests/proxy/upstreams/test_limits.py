"""How long each step may take, how many connections there may be, and how much is held."""

from __future__ import annotations

import asyncio

import pytest

from sluice.proxy.errors import (
    UpstreamConnectTimeoutError,
    UpstreamPoolTimeoutError,
    UpstreamReadTimeoutError,
    UpstreamUnreachableError,
    UpstreamWriteTimeoutError,
)
from sluice.proxy.upstreams import HttpLimits
from sluice.proxy.upstreams.http import HttpUpstream
from tests.proxy.upstreams.peers import CHUNKED, Peer, ask, serving


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
            await asyncio.sleep(0.15)
            await peer.say(b"1\r\nx\r\n")
        await peer.say(b"0\r\n\r\n")

    async with serving(play, HttpLimits(read_timeout_s=1.0)) as served:
        assert await ask(served) == b"x" * 8


async def test_an_upstream_that_takes_nothing_runs_into_the_write_limit() -> None:
    given_up = asyncio.Event()

    async def play(peer: Peer) -> None:
        await given_up.wait()

    async with serving(play, HttpLimits(write_timeout_s=0.3)) as served:
        with pytest.raises(UpstreamWriteTimeoutError):
            await ask(served, b"x" * 30_000_000)
        given_up.set()


async def test_no_connection_is_told_from_no_free_one() -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    async with serving(play, HttpLimits(max_connections=1, pool_timeout_s=0.1)) as served:
        task = asyncio.create_task(ask(served))
        await served.came.wait()
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
