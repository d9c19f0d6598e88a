"""What is not understood goes to the upstream and back as it is."""

from __future__ import annotations

import asyncio

import pytest

from tests.proxy.servers import Exchange, ScriptedUpstream, proxy

TARGETS = [
    "/v1/files/file-1/content?after=a%2Fb&x=1&x=",
    "/v1/responses/resp_1%2Fa?include[]=x",
    "/v1/chat/completions/stored",
    "/v1/a//b%20c",
]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_method_path_query_headers_and_body_pass(upstream: ScriptedUpstream, method: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(b"\x00\xffanswer", 207, (b"x-theirs", b"yes"), (b"openai-version", b"2020-10-01"))

    upstream.answer = answer
    body = b"" if method in ("GET", "OPTIONS") else bytes(range(256))
    headers = {"authorization": "Bearer k", "openai-beta": "x=1", "content-type": "application/octet-stream"}
    async with proxy(upstream.url) as client:
        for target in TARGETS:
            got = await client.request(method, target, content=body, headers=headers)
            sent = upstream.last
            assert (sent.method, sent.raw_target, sent.body) == (method, target.encode(), body)
            assert {key: sent.header(key) for key in headers} == {key: value.encode() for key, value in headers.items()}
            assert (got.status_code, got.content) == (207, b"\x00\xffanswer")
            assert (got.headers["x-theirs"], got.headers["openai-version"]) == ("yes", "2020-10-01")
    assert len(upstream.exchanges) == len(TARGETS)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("DELETE", "/v1/models"), ("GET", "/v1/responses")]
)
async def test_other_methods_of_known_routes_are_the_upstreams(
    upstream: ScriptedUpstream, method: str, path: str
) -> None:
    async with proxy(upstream.url) as client:
        assert (await client.request(method, path)).status_code == 200
    assert (upstream.last.method, upstream.last.path) == (method, path)


async def test_embeddings_and_rerank_go_where_their_model_is_served(upstream: ScriptedUpstream) -> None:
    tables = (
        {"name": "two", "origin": upstream.url, "models": ["embed-*"]},
        {"name": "one", "origin": "http://127.0.0.1:9"},
    )
    async with proxy("http://127.0.0.1:9", upstreams=tables) as client:
        for path in ("/v1/embeddings", "/v1/rerank"):
            got = await client.post(
                path, content=b'{ "input": ["a"],  "model": "embed-1" }', headers={"content-type": "application/json"}
            )
            assert (got.status_code, got.headers["x-sluice-upstream"]) == (200, "two")
            assert (upstream.last.path, upstream.last.body) == (path, b'{ "input": ["a"],  "model": "embed-1" }')


async def test_an_answer_is_relayed_as_it_comes(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("application/octet-stream")
        await exchange.part(b"first")
        await exchange.hung_up.wait()

    upstream.answer = answer
    async with proxy(upstream.url) as client, client.stream("GET", "/v1/files/f/content") as got:
        assert await anext(got.aiter_raw()) == b"first"


async def test_what_no_upstream_answers_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with proxy("http://127.0.0.1:9", max_retries=0) as client:
        with caplog.at_level("WARNING", "sluice.proxy"):
            got = await client.post("/v1/embeddings", json={"input": "hush", "model": "m"})
        assert got.status_code == 502
        assert 'sluice_requests_total{status="502"} 1.0' in (await client.get("/metrics")).text
    (line,) = (message for message in caplog.messages if message.startswith("refused "))
    assert "status=502 method=POST path=/v1/embeddings error=UpstreamUnreachableError@" in line


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime"])
async def test_a_websocket_upgrade_is_told_to_use_http(upstream: ScriptedUpstream, path: str) -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    async with proxy(upstream.url) as client:
        got = await client.get(path, headers=upgrade)
    assert got.status_code == 426
    assert "use HTTP" in got.json()["error"]["message"]
    assert not upstream.exchanges


async def test_too_large_a_body_is_413_here_too(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url, max_body_bytes=100) as client:
        got = await client.post("/v1/files", content=bytes(101))
    assert (got.status_code, got.json()["error"]["code"]) == (413, "body_too_large")
    assert int(got.headers["retry-after"]) >= 60


@pytest.mark.parametrize(("is_local", "seen"), [(True, b"def f"), (False, None)])
async def test_a_draft_goes_to_self_hosted_upstreams_alone(
    upstream: ScriptedUpstream, is_local: bool, seen: bytes | None
) -> None:
    table = {"name": "up", "origin": upstream.url, "is_local": is_local}
    async with proxy(upstream.url, upstreams=(table,)) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        await client.post(
            "/v1/chat/completions", json=body, headers={"x-sluice-draft": "def f", "x-sluice-mode": "safe"}
        )
    assert upstream.last.header("x-sluice-draft") == seen
    assert upstream.last.header("x-sluice-mode") is None


@pytest.mark.parametrize(
    "target", ["/v1/../admin", "/v1/files/..", "/v1/%2e%2e/admin", "/v1/a/..%2f..%2fadmin", "/v1/..%5cadmin"]
)
async def test_a_path_that_leads_out_of_v1_goes_nowhere(upstream: ScriptedUpstream, target: str) -> None:
    async with proxy(upstream.url) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"must not hold" in answer
    assert not upstream.exchanges


async def test_half_an_emoji_leads_to_no_other_upstream(upstream: ScriptedUpstream) -> None:
    tables = ({"name": "two", "origin": upstream.url, "models": ["embed-*"]},)
    body = b'{"model": "embed-1", "input": "x\\ud83d y"}'
    async with proxy("http://127.0.0.1:9", upstreams=tables, max_retries=0) as client:
        got = await client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert (got.status_code, got.headers["x-sluice-upstream"]) == (200, "two")
    assert upstream.last.body == body
