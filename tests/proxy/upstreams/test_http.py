"""What is sent over HTTP/1.1, against servers that write their bytes themselves."""

from __future__ import annotations

import pytest

from sluice.proxy.errors import (
    UpstreamError,
)
from tests.proxy.upstreams.peers import OK, Peer, always, ask, serving, whole


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
    ("path", "headers"),
    [("/a b", []), ("/a\r\nx: y", []), ("/", [(b"a", b"b\r\nc: d")]), ("/", [(b"a", b"b\nc: d")])],
)
async def test_a_head_that_would_say_more_is_not_sent(path: str, headers: list[tuple[bytes, bytes]]) -> None:
    async with serving(always(OK)) as served:
        with pytest.raises(UpstreamError, match="line break or a space"):
            await served.upstream.send("GET", path, headers)
        assert not served.peers


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
