from __future__ import annotations

import asyncio
import json

from sluice.proxy.headers import find, to_client, to_upstream
from tests.proxy.servers import Exchange, ScriptedUpstream, completion, proxy
from tests.proxy.upstreams.peers import always, serving

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_hop_by_hop_headers_end_here_both_ways() -> None:
    hops = [
        (b"connection", b"keep-alive, X-Private"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-authorization", b"Basic x"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"x-private", b"1"),
    ]
    kept = [(b"x-kept", b"1"), (b"accept-encoding", b"gzip")]
    assert to_upstream([*hops, *kept], identity=False) == kept
    assert to_client([(name.title(), value) for name, value in hops + kept], has_length=True) == kept


def test_what_is_ours_goes_no_further() -> None:
    ours = [(b"x-sluice-key", b"secret"), (b"x-sluice-mode", b"off"), (b"host", b"h"), (b"content-length", b"3")]
    assert to_upstream(ours, identity=False) == [(b"accept-encoding", b"identity")]
    assert to_client([(b"x-sluice-tokens-in", b"9")], has_length=True) == []


def test_whose_page_asks_is_no_business_of_an_upstreams() -> None:
    pages = [(b"origin", b"http://127.0.0.1:8790"), (b"sec-fetch-site", b"same-origin"), (b"sec-fetch-mode", b"cors")]
    kept = [(b"original", b"1"), (b"accept-encoding", b"gzip")]
    assert to_upstream([*pages, *kept], identity=False) == kept


def test_streams_are_asked_for_uncompressed() -> None:
    assert to_upstream([(b"accept-encoding", b"gzip, br")], identity=True) == [(b"accept-encoding", b"identity")]


def test_the_length_of_a_stream_of_events_is_not_promised() -> None:
    assert to_client([(b"content-length", b"3")], has_length=False) == []
    assert to_client([(b"content-length", b"3")], has_length=True) == [(b"content-length", b"3")]


def test_find_takes_the_first() -> None:
    assert find([(b"a", b" 1 "), (b"a", b"2")], b"a") == "1"
    assert find([], b"a") is None


async def test_end_to_end_headers_pass_and_the_host_is_the_upstreams(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        await client.post(
            "/v1/chat/completions",
            json=BODY,
            headers={
                "authorization": "Bearer sk",
                "x-sluice-key": "k",
                "openai-organization": "o",
                "user-agent": "a/1",
            },
        )
    assert upstream.last.header("authorization") == b"Bearer sk"
    assert upstream.last.header("openai-organization") == b"o"
    assert upstream.last.header("user-agent") == b"a/1"
    assert upstream.last.header("host") == upstream.url.removeprefix("http://").encode()
    assert not [name for name, _ in upstream.last.headers if name.startswith(b"x-sluice")]
    names = [name for name, _ in upstream.last.headers]
    assert len(names) == len(set(names))


async def test_a_compressed_answer_passes_as_it_is_and_cookies_are_not_shared(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(
            b"\x1f\x8bnot really",
            200,
            (b"content-encoding", b"x-odd"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        )

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        got = await client.post("/v1/chat/completions", json=BODY, headers={"accept-encoding": "x-odd"})
        assert got.content == b"\x1f\x8bnot really"
        assert got.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert upstream.last.header("accept-encoding") == b"x-odd"
        client.cookies.clear()
        await client.post("/v1/chat/completions", json=BODY)
        assert upstream.last.header("cookie") is None


async def test_redirects_are_not_followed(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(b"", 307, (b"location", b"http://127.0.0.1:9/elsewhere"))

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        got = await client.post("/v1/chat/completions", json=BODY, headers={"authorization": "Bearer sk"})
    assert (got.status_code, got.headers["location"]) == (307, "http://127.0.0.1:9/elsewhere")
    assert len(upstream.exchanges) == 1


async def test_connections_are_used_again(upstream: ScriptedUpstream) -> None:
    connections = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer.get_extra_info("peername"))
        answer = json.dumps(completion()).encode()
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))

    async def forgiving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(forgiving, "127.0.0.1", 0)
    async with proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        for _ in range(5):
            assert (await client.post("/v1/chat/completions", json=BODY)).json() == completion()
    server.close()
    assert len(connections) == 1


async def test_headers_that_http_does_not_allow_cost_no_answer() -> None:
    answer = json.dumps(completion()).encode()
    head = b"HTTP/1.1 200 OK\r\nx-c: a\x01b\r\nx-d: 1\t2\r\ncontent-length: %d\r\n\r\n" % len(answer)
    async with serving(always(head + answer)) as served, proxy(served.upstream.origin) as client:
        got = await client.post("/v1/chat/completions", json=BODY)
    assert got.json() == completion()
    assert "x-c" not in got.headers
    assert got.headers["x-d"] == "1\t2"


def test_names_that_are_none_go_no_further() -> None:
    assert to_client([(b"x y", b"1"), (b"x\x01", b"1"), (b"", b"1"), (b"x", b"\xe9")], has_length=True) == [
        (b"x", b"\xe9")
    ]


async def test_an_answer_that_cannot_have_a_body_promises_none() -> None:
    head = b"HTTP/1.1 304 Not Modified\r\netag: 1\r\ncontent-length: 5\r\n\r\n"
    async with serving(always(head)) as served, proxy(served.upstream.origin) as client:
        got = await client.get("/v1/files/f", headers={"if-none-match": "1"})
    assert (got.status_code, got.content, got.headers["etag"]) == (304, b"", "1")
    assert "content-length" not in got.headers
