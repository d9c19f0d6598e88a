"""Whose figures a key is told: its own; everybody's are for the proxy's owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from sluice.proxy.access.keys import make_key
from tests.proxy.servers import ScriptedUpstream, proxy

OWNER = "the-owners-key"
ANN, ANNS = make_key("ann")
BEN, BENS = make_key("ben")


@pytest.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A proxy that has served two requests of Ann's and one of Ben's."""
    async with proxy(upstream.url, keys=(ANN, BEN), dashboard_key=SecretStr(OWNER), search_roots=()) as client:
        for key, said in ((ANNS, "a"), (ANNS, "b"), (BENS, "c")):
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": said}]}
            assert (await client.post("/v1/chat/completions", json=body, headers={"x-sluice-key": key})).is_success
        yield client


async def get(client: httpx.AsyncClient, path: str, key: str, status: int = 200) -> Any:
    answer = await client.get(path, headers={"x-sluice-key": key})
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("key", "names"),
    [(ANNS, [ANN.id] * 2), (BENS, [BEN.id]), (OWNER, [BEN.id, ANN.id, ANN.id])],
    ids=["ann", "ben", "owner"],
)
async def test_figures_are_those_of_the_key(client: httpx.AsyncClient, key: str, names: list[str]) -> None:
    found = await get(client, "/v1/stats", key)
    assert found["totals"]["num_turns"] == len(names)
    assert {group["name"] for group in found["by_key"]} == set(names)
    listed = (await get(client, "/v1/stats/conversations", key))["conversations"]
    assert [one["key"] for one in listed] == names
    assert [
        one["key"] for one in (await get(client, "/v1/stats/conversations?start=1&limit=1", key))["conversations"]
    ] == (names[1:2])
    overview = await get(client, "/dashboard/api/overview", key)
    assert overview["totals"]["num_turns"] == len(names)
    page = await get(client, "/dashboard/api/conversations", key)
    assert (page["total"], [one["key"] for one in page["conversations"]]) == (len(names), names)


async def test_another_keys_conversation_is_not_told_from_one_that_never_was(client: httpx.AsyncClient) -> None:
    [bens] = (await get(client, "/v1/stats/conversations", BENS))["conversations"]
    for path in (f"/v1/stats/conversations/{bens['id']}", f"/dashboard/api/conversations/{bens['id']}"):
        assert len((await get(client, path, BENS))["turns"]) == 1
        assert len((await get(client, path, OWNER))["turns"]) == 1
        assert (await get(client, path, ANNS, 404))["error"]["code"] == "unknown_conversation_id"


async def test_the_owners_key_opens_figures_and_spends_nothing(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    num_asked = len(upstream.exchanges)
    assert (await client.get("/metrics", headers={"x-sluice-key": OWNER})).status_code == 200
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    answer = await client.post("/v1/chat/completions", json=body, headers={"x-sluice-key": OWNER})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unknown_proxy_key")
    for path in ("/v1/models", "/v1/statsother", "/v1/recall/7f3a"):
        await get(client, path, OWNER, 401)
    for path in ("/v1/stats", "/v1/stats/conversations", "/metrics"):
        await get(client, path, OWNER + "x", 401)
        assert (await client.get(path)).status_code == 401
    assert len(upstream.exchanges) == num_asked
