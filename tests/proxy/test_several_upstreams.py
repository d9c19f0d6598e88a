"""The whole proxy before several upstreams: routing, fallback, health, and secrets that show nowhere."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from redis import Redis

from sluice.backend.free_port import free_port
from sluice.proxy.access.keys import make_key
from sluice.proxy.upstreams import UpstreamSettings
from tests.proxy.servers import Exchange, ScriptedUpstream, answer_plainly, completion, proxy, reading_twice, serving
from tests.redis_server import RedisServer

CHAT = "/v1/chat/completions"


def body(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}]}


@pytest_asyncio.fixture
async def other() -> AsyncIterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    async with serving(scripted) as url:
        scripted.url = url
        yield scripted


def table(name: str, url: str, **more: Any) -> UpstreamSettings:
    return UpstreamSettings.model_validate({"name": name, "origin": url, **more})


async def unavailable(exchange: Exchange) -> None:
    await exchange.whole(b'{"error": {"message": "loading"}}', 503)


async def test_models_go_to_whom_serves_them(upstream: ScriptedUpstream, other: ScriptedUpstream) -> None:
    tables = (table("local", other.url, models=["qwen*"]),)
    async with proxy(upstream.url, upstreams=tables) as client:
        for model, served_by in (("qwen3", "local"), ("gpt-4o", "default")):
            answer = await client.post(CHAT, json=body(model), headers={"authorization": "Bearer own"})
            assert answer.headers["x-sluice-upstream"] == served_by
        assert (other.last.json["model"], other.last.header("authorization")) == ("qwen3", None)
        assert (upstream.last.json["model"], upstream.last.header("authorization")) == ("gpt-4o", b"Bearer own")
        ready = await client.get("/readyz")
        assert ready.json() == {"status": "ready", "store": "ok", "upstreams": {"local": "ok", "default": "ok"}}


async def test_a_model_that_nobody_serves_is_404(upstream: ScriptedUpstream) -> None:
    async with proxy(None, upstreams=(table("a", upstream.url, models=["gpt-*"]),)) as client:
        answer = await client.post(CHAT, json=body("claude"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert not upstream.exchanges


async def test_readiness_names_who_does_not_answer(upstream: ScriptedUpstream) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    async with proxy(upstream.url, upstreams=(table("dead", dead, models=["d"]),)) as client:
        ready = await client.get("/readyz")
    assert ready.status_code == 200, "what the others serve goes on"
    assert ready.json()["upstreams"]["default"] == "ok"
    assert dead in ready.json()["upstreams"]["dead"]


async def test_a_fallback_gets_the_bytes_that_were_decided_and_says_so(
    upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    tables = (
        table("a", upstream.url, fallback=["b"], credential="client", max_retries=0),
        table("b", other.url, models=[]),
    )
    messages = reading_twice()
    for number in range(3, 7):
        messages += json.loads(json.dumps(messages[3:5]).replace("call_2", f"call_{number}"))
    turns = [messages[: end + 1] for end, message in enumerate(messages) if message["role"] == "tool"]
    forwarded: list[list[Any]] = []
    served_by = []
    async with proxy(None, upstreams=tables) as client:
        for number, turn in enumerate(turns):
            upstream.answer = unavailable if number in (2, 3) else answer_plainly
            answer = await client.post(CHAT, json={"model": "gpt-4o", "messages": turn})
            assert answer.json() == completion()
            served_by.append(answer.headers["x-sluice-upstream"])
            forwarded.append((upstream if served_by[-1] == "a" else other).last.json["messages"])
        metrics = (await client.get("/metrics")).text
    assert served_by == ["a", "a", "b", "b", "a", "a"]
    for earlier, later in pairwise(forwarded):
        assert later[: len(earlier)] == earlier
    assert 'sluice_upstream_fallbacks_total{fallback="b",upstream="a"} 2.0' in metrics


SECRETS = ("hush-client", "hush-cookie", "hush-configured", "hush-query")


@pytest.mark.redis
async def test_no_secret_is_logged_or_kept_or_sent_elsewhere(
    upstream: ScriptedUpstream,
    other: ScriptedUpstream,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("B_KEY", "hush-configured")
    key, text = make_key("ann", requests_per_minute=1000, tokens_per_day=10**9)
    tables = (
        table("a", upstream.url, fallback=["b"], credential="client"),
        table("b", other.url, models=[], credential="env:B_KEY"),
    )
    headers = {"authorization": "Bearer hush-client", "cookie": "s=hush-cookie", "x-sluice-key": text}
    shown = ""
    options = {"redis_url": redis_server.url, "keys": (key,), "retry_max_wait_s": 0.01}
    async with proxy(None, upstreams=tables, **options) as client:
        for answer in (answer_plainly, unavailable):
            upstream.answer = answer
            for path, sent in ((CHAT, {"model": "m", "messages": reading_twice()}), (CHAT, "nonsense")):
                got = await client.post(f"{path}?key=hush-query", json=sent, headers=headers)
                shown += repr(got.headers) + got.text
        for path in ("/metrics", "/readyz", "/v1/models"):
            shown += (await client.get(path, headers=headers)).text
    kept = everything_in(redis_server.url)
    elsewhere = "".join(repr((e.headers, e.query, e.body)) for e in other.exchanges)
    assert len(kept) > 1000
    assert other.last.header("authorization") == b"Bearer hush-configured"
    # The tests' own client logs what it sends.
    logged = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "upstream=" in logged
    for secret in (*SECRETS, text):
        assert secret not in shown + logged
        assert secret.encode() not in kept
        assert secret in ("hush-configured",) or secret not in elsewhere


def everything_in(url: str) -> bytes:
    """Every key and value, whatever its kind."""
    with Redis.from_url(url) as redis:
        read = {
            b"string": lambda name: [redis.get(name)],
            b"hash": lambda name: [part for pair in redis.hgetall(name).items() for part in pair],
            b"set": redis.smembers,
            b"zset": lambda name: redis.zrange(name, 0, -1),
            b"list": lambda name: redis.lrange(name, 0, -1),
        }
        return b"".join(part for name in redis.keys("*") for part in (name, *read[redis.type(name)](name)))


@pytest.mark.parametrize(("model", "served_by"), [("qwen3", "local"), ("gpt-4o", "default")])
async def test_a_body_that_only_others_can_read_goes_to_its_models_upstream_all_the_same(
    upstream: ScriptedUpstream, other: ScriptedUpstream, model: str, served_by: str
) -> None:
    raw = b'{"model": "%s", "temperature": NaN, "messages": [{"role": "user", "content": "hi"}]}' % model.encode()
    headers = {"x-sluice-mode": "off", "content-type": "application/json"}
    async with proxy(upstream.url, upstreams=(table("local", other.url, models=["qwen*"]),)) as client:
        answer = await client.post(CHAT, content=raw, headers=headers)
    assert answer.headers["x-sluice-upstream"] == served_by
    assert (upstream, other)[served_by == "local"].last.body == raw


async def test_where_no_upstream_serves_the_model_of_such_a_body_the_default_is_asked(
    upstream: ScriptedUpstream,
) -> None:
    async with proxy(None, upstreams=(table("a", upstream.url, models=["gpt-*"]),)) as client:
        answer = await client.post(CHAT, content=b'{"model": "claude", "x": NaN}', headers={"x-sluice-mode": "off"})
    assert (answer.status_code, answer.headers["x-sluice-upstream"]) == (200, "a")
