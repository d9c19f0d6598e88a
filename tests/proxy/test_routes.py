from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from sluice.proxy.access.keys import START
from sluice.search import recall
from sluice.search.recall import proxy_recall
from tests.proxy.servers import ScriptedUpstream, proxy, reading_twice


async def shorten(client: httpx.AsyncClient, upstream: ScriptedUpstream, **headers: str) -> str:
    """Send a conversation with a second read; the id in the marker that stands in its place."""
    body: Any = {"model": "gpt-4o", "messages": reading_twice()}
    await client.post("/v1/chat/completions", json=body, headers=headers)
    match = re.match(r"\[sluice ([0-9a-f]{4}):", upstream.last.json["messages"][4]["content"])
    assert match is not None
    return match[1]


async def test_an_original_is_recalled_by_the_marker_and_by_nobody_else(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        recall_id = await shorten(client, upstream, authorization="Bearer one")
        got = await client.get(f"/v1/recall/{recall_id}", headers={"authorization": "Bearer one"})
        assert got.status_code == 200
        assert got.json() == {"id": recall_id, "text": reading_twice()[4]["content"]}
        for headers in ({"authorization": "Bearer two"}, {}, {"x-sluice-key": "Bearer one"}):
            other = await client.get(f"/v1/recall/{recall_id}", headers=headers)
            assert (other.status_code, other.json()["error"]["code"]) == (404, "unknown_recall_id")


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("authorization", "Bearer sk-one", "sk-one"),
        ("x-api-key", "sk-one", "sk-one"),
        ("x-sluice-key", "sk-one", "sk-one"),
        ("x-sluice-key", "sk-sluice-one", "sk-sluice-one"),
        ("accept", "*/*", ""),
    ],
)
async def test_what_an_agent_sends_finds_its_originals_over_mcp(
    upstream: ScriptedUpstream, name: str, value: str, key: str
) -> None:
    async with proxy(upstream.url) as client:
        recall_id = await shorten(client, upstream, **{name: value})
        assert await proxy_recall(str(client.base_url), key)(recall_id) == reading_twice()[4]["content"]
        for wrong in ("sk-two", "sk-sluice-two", "" if key else "sk-one"):
            with pytest.raises(LookupError, match="404"):
                await proxy_recall(str(client.base_url), wrong)(recall_id)


def test_recall_knows_a_proxy_key_by_its_form() -> None:
    assert recall._PROXY_KEY_START == START


async def test_a_proxy_key_keeps_state_when_the_credential_changes(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        recall_id = await shorten(client, upstream, **{"authorization": "Bearer old", "x-sluice-key": "k"})
        got = await client.get(f"/v1/recall/{recall_id}", headers={"authorization": "Bearer new", "x-sluice-key": "k"})
        assert got.status_code == 200


@pytest.mark.parametrize("recall_id", ["7f3", "zzzz", "7f3a7f3a", "0" * 32])
async def test_an_id_that_names_nothing_is_404(upstream: ScriptedUpstream, recall_id: str) -> None:
    async with proxy(upstream.url) as client:
        answer = await client.get(f"/v1/recall/{recall_id}")
    assert answer.status_code == 404
    assert recall_id in answer.json()["error"]["message"]


async def test_health(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "ready", "store": "ok", "upstreams": {"default": "ok"}},
        )
    assert upstream.last.header("authorization") is None


async def test_readiness_says_what_is_missing() -> None:
    async with proxy("http://127.0.0.1:9", redis_url="redis://:hush@127.0.0.1:9/0") as client:
        ready = await client.get("/readyz")
        assert (await client.get("/healthz")).status_code == 200
    assert ready.status_code == 503
    assert "127.0.0.1:9" in ready.json()["upstreams"]["default"]
    assert "Redis" in ready.json()["store"]
    assert "hush" not in ready.text


async def test_metrics_count(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        await shorten(client, upstream)
        await client.post("/v1/chat/completions", content=b"no json")
        lines = dict(
            line.rsplit(" ", 1) for line in (await client.get("/metrics")).text.splitlines() if not line.startswith("#")
        )
    assert lines['sluice_requests_total{status="200"}'] == "1.0"
    assert lines['sluice_requests_total{status="400"}'] == "1.0"
    assert lines["sluice_overhead_seconds_count"] == "1.0"
    assert 0 < float(lines["sluice_tokens_out_total"]) < float(lines["sluice_tokens_in_total"])
