"""The API behind the pages: figures for whoever is served, content for the key that it ran under, pins."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from sluice.proxy.access.keys import make_key
from tests.dashboard.traffic import CachingProvider, replay, shipped
from tests.proxy.servers import Json, ScriptedUpstream, proxy, reading_twice, serving

OWNER = "the-owners-key"
MODEL = "claude-sonnet-4-5"


@asynccontextmanager
async def dashboard(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    upstream = ScriptedUpstream()
    upstream.answer = CachingProvider()
    async with serving(upstream) as url, proxy(url, **settings) as client:
        yield client


async def say(client: httpx.AsyncClient, messages: list[Json], **headers: str) -> httpx.Response:
    body = {"model": MODEL, "messages": messages}
    return await client.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer u", **headers})


async def api(client: httpx.AsyncClient, path: str, key: str = "", status: int = 200) -> Any:
    answer = await client.get(f"/dashboard/api{path}", headers={"x-sluice-key": key} if key else {})
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_figures_need_no_key_where_none_is_wanted_and_content_always_does() -> None:
    async with dashboard(store_content=True, dashboard_key=SecretStr(OWNER)) as client:
        await say(client, reading_twice())
        assert (await api(client, "/session"))["role"] == "guest"
        listed = (await api(client, "/conversations"))["conversations"]
        assert [one["title"] for one in listed] == [None]
        name = listed[0]["id"]
        assert (await api(client, f"/conversations/{name}"))["turns"][0]["status"] == 200
        assert (await api(client, f"/conversations/{name}/request", status=401))["error"]["code"] == "missing_proxy_key"
        assert (await api(client, "/session", "a guess", 401))["error"]["code"] == "unknown_proxy_key"
        pin = {"message": 2, "text": 0, "start": 0, "stop": 1}
        assert (await client.post(f"/dashboard/api/conversations/{name}/pins", json=pin)).status_code == 401

        assert (await api(client, "/session", OWNER))["may_read_content"] is True
        assert (await api(client, "/conversations", OWNER))["conversations"][0]["title"] == "fix it"
        assert (await api(client, "/overview", OWNER))["files"][0]["name"] == "a.py"
        assert (await api(client, "/overview"))["files"] == []


async def test_the_original_stands_beside_what_was_forwarded() -> None:
    async with dashboard(store_content=True, dashboard_key=SecretStr(OWNER)) as client:
        messages = [{"role": "system", "content": "You fix things."}, *reading_twice()]
        await say(client, messages, **{"x-sluice-mode": "safe"})
        name = (await api(client, "/conversations"))["conversations"][0]["id"]
        shown = (await api(client, f"/conversations/{name}/request", OWNER))["messages"]
        assert [message["position"] for message in shown] == [None, 1, 2, 3, 4, 5]
        assert [text["parts"] for text in shown[3]["texts"]] == [
            [{"type": "kept", "text": messages[3]["content"], "start": 0, "stop": 40}]
        ]
        [text] = shown[5]["texts"]
        assert (text["tool"], text["path"], text["kind"]) == ("Read", "a.py", "read")
        [dropped] = text["parts"]
        assert dropped["reason"] == "seen above"
        assert dropped["text"] == messages[5]["content"]
        assert dropped["marker"].endswith("40 lines as in message 3]")
        assert dropped["score"] is None


async def test_a_reply_that_came_in_pieces_is_one_message_and_the_results_behind_it_keep_their_spans() -> None:
    text = reading_twice()[2]["content"]
    items: list[Json] = [{"type": "message", "role": "user", "content": "fix it"}]
    for call_id in ("call_1", "call_2"):
        items += [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": call_id, "name": "Read", "arguments": '{"file_path": "a.py"}'},
            {"type": "function_call_output", "call_id": call_id, "output": text},
        ]
    async with dashboard(store_content=True, dashboard_key=SecretStr(OWNER)) as client:
        body = {"model": MODEL, "instructions": "You fix things.", "input": items}
        headers = {"authorization": "Bearer u", "x-sluice-mode": "safe"}
        assert (await client.post("/v1/responses", json=body, headers=headers)).status_code == 200
        name = (await api(client, "/conversations"))["conversations"][0]["id"]
        shown = (await api(client, f"/conversations/{name}/request", OWNER))["messages"]
        assert [message["position"] for message in shown] == [1, 2, 2, 3, 4, 4, 5]
        [dropped] = shown[6]["texts"][0]["parts"]
        assert dropped["reason"] == "seen above"
        assert dropped["marker"].endswith("40 lines as in message 3]")


async def test_what_was_judged_carries_its_score_and_a_pin_brings_it_back() -> None:
    async with dashboard(store_content=True, dashboard_key=SecretStr(OWNER), mode="aggressive") as client:
        await replay(client, shipped()[:1], max_turns=9)
        name = (await api(client, "/conversations"))["conversations"][0]["id"]
        shown = (await api(client, f"/conversations/{name}/request", OWNER))["messages"]
        spans = [
            (message, text, part)
            for message in shown
            for text in message["texts"]
            for part in text["parts"]
            if part["type"] == "dropped" and part["reason"] == "not needed"
        ]
        message, text, part = spans[0]
        assert 0 <= part["score"] < 1
        assert part["is_pinned"] is False
        pin = {"message": message["index"], "text": text["index"], "start": part["start"], "stop": part["stop"]}
        path = f"/dashboard/api/conversations/{name}/pins"
        key = {"x-sluice-key": OWNER}
        assert (await client.post(path, json=pin, headers=key)).status_code == 200
        elsewhere = {**key, "origin": "https://elsewhere.example"}
        assert (await client.post(path, json=pin, headers=elsewhere)).status_code == 403
        for wrong in ({**pin, "stop": 10_000}, {**pin, "message": 0}, {**pin, "text": 7}, {"message": 1}):
            assert (await client.post(path, json=wrong, headers=key)).status_code == 400
        assert (await client.post(path, content=b"{", headers=key)).status_code == 400

        await replay(client, shipped()[:1], max_turns=10)
        again = (await api(client, f"/conversations/{name}/request", OWNER))["messages"]
        assert [one["texts"] for one in again[: message["index"]]] == [
            one["texts"] for one in shown[: message["index"]]
        ]
        pinned = [p for t in again[message["index"]]["texts"] for p in t["parts"] if p.get("is_pinned")]
        assert [(p["start"], p["stop"]) for p in pinned] == [(part["start"], part["stop"])]
        added = [p["text"] for one in again for t in one["texts"] for p in t["parts"] if p["type"] == "added"]
        assert any(part["text"] in text for text in added)

        unpinned = await client.post(path, json={**pin, "pinned": False}, headers=key)
        assert unpinned.json() == {"start": part["start"], "stop": part["stop"], "pinned": False}
        after = (await api(client, f"/conversations/{name}/request", OWNER))["messages"]
        assert json.dumps(after).count('"is_pinned": true') == 0


async def test_a_key_sees_its_own_content_and_no_other() -> None:
    (ann, anns), (ben, bens) = make_key("ann"), make_key("ben")
    async with dashboard(store_content=True, keys=(ann, ben), dashboard_key=SecretStr(OWNER)) as client:
        await say(client, reading_twice(), **{"x-sluice-key": anns})
        await api(client, "/session", status=401)
        await api(client, "/overview", status=401)
        assert (await client.get("/dashboard")).status_code == 200, "a page that asks for a key has to be served"
        assert (await client.get("/v1/stats")).status_code == 401
        assert (await api(client, "/session", bens))["name"] == "ben"
        assert (await api(client, "/conversations", bens))["conversations"] == []
        name = (await api(client, "/conversations", anns))["conversations"][0]["id"]
        await api(client, f"/conversations/{name}", bens, 404)
        hidden = await api(client, f"/conversations/{name}/request", bens, 404)
        assert hidden["error"]["code"] == "content_not_kept"
        for key in (anns, OWNER):
            assert (await api(client, "/conversations", key))["conversations"][0]["title"] == "fix it"
            assert len((await api(client, f"/conversations/{name}/request", key))["messages"]) == 5


async def test_without_store_content_none_is_kept() -> None:
    async with dashboard(dashboard_key=SecretStr(OWNER)) as client:
        await say(client, reading_twice())
        listed = (await api(client, "/conversations", OWNER))["conversations"]
        assert listed[0]["title"] is None
        refused = await api(client, f"/conversations/{listed[0]['id']}/request", OWNER, 404)
        assert "store_content is off" in refused["error"]["message"]
        assert (await api(client, "/overview", OWNER))["files"] == []


async def test_where_the_tokens_go() -> None:
    async with dashboard() as client:
        await say(client, reading_twice(), **{"x-sluice-mode": "safe"})
        found = await api(client, "/overview")
        [read] = found["by_tool"]
        assert read["name"] == "Read"
        assert 0 < read["tokens_out"] < 0.6 * read["tokens_in"], "the second reading is a marker"
        assert {one["name"] for one in found["by_kind"]} == {"read", "user", "assistant"}
        again = await say(client, reading_twice(), **{"x-sluice-mode": "safe"})
        assert again.status_code == 200
        assert (await api(client, "/overview"))["by_tool"] == [read], "what came before is not counted again"


async def test_conversations_are_sorted_searched_and_paged() -> None:
    async with dashboard() as client:
        for number, size in enumerate((10, 60, 30)):
            await say(client, [{"role": "user", "content": f"task {number}"}, *reading_twice(size)[1:]])
        everything = await api(client, "/conversations?sort=cost")
        costs = [one["sums"]["cost"] for one in everything["conversations"]]
        assert everything["total"] == 3
        assert costs == sorted(costs, reverse=True)
        page = await api(client, "/conversations?sort=cost&start=1&limit=1")
        assert [one["id"] for one in page["conversations"]] == [everything["conversations"][1]["id"]]
        name = everything["conversations"][2]["id"]
        assert (await api(client, f"/conversations?q={name[:10]} SONNET"))["total"] == 1
        assert (await api(client, "/conversations?q=nothing like it"))["total"] == 0
        assert "sort must be one of" in (await api(client, "/conversations?sort=luck", status=400))["error"]["message"]
        assert (await api(client, "/conversations/ffff", status=404))["error"]["code"] == "unknown_conversation_id"


@pytest.mark.parametrize("path", ["", "/conversations", "/conversations/0f", "/backends", "/searches"])
async def test_pages_run_nothing_inline_and_load_nothing_from_elsewhere(path: str) -> None:
    async with dashboard() as client:
        answer = await client.get(f"/dashboard{path}")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in answer.text.replace("http://www.w3.org", "")
        again = await client.get(f"/dashboard{path}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
        rebound = await client.get(f"/dashboard{path}", headers={"host": "rebound.example"})
        assert rebound.status_code == 403


async def test_files_are_served_by_name_alone() -> None:
    async with dashboard() as client:
        found = await client.get("/dashboard/static/main.js")
        assert found.headers["content-type"].startswith("text/javascript")
        for name in ("vendor/README.md", "../pages.py", "..%2fpages.py", "nothing.js"):
            assert (await client.get(f"/dashboard/static/{name}")).status_code == 404


@pytest.mark.redis
async def test_two_workers_show_the_same(redis_url: str) -> None:
    upstream = ScriptedUpstream()
    upstream.answer = CachingProvider()
    settings = {"store_content": True, "dashboard_key": SecretStr(OWNER), "redis_url": SecretStr(redis_url)}
    async with serving(upstream) as url, proxy(url, **settings) as one, proxy(url, **settings) as other:
        await say(one, reading_twice())
        name = (await api(one, "/conversations", OWNER))["conversations"][0]["id"]
        kept = await api(one, f"/conversations/{name}/request", OWNER)
        assert await api(other, f"/conversations/{name}/request", OWNER) == kept
        assert (await api(other, "/conversations", OWNER))["conversations"][0]["title"] == "fix it"
        assert json.dumps(kept).count("compute(") == 80


@pytest.mark.parametrize("place", ["first words", "result", "path"])
async def test_half_an_emoji_breaks_no_page(place: str) -> None:
    messages = reading_twice()
    if place == "first words":
        messages[0]["content"] = "cut \ud83d"
    elif place == "result":
        messages[2]["content"] = "cut \ud83d\n" * 30
    else:
        patch = "*** Begin Patch\n*** Update File: a\ud83d.py\n*** End Patch"
        for message in (messages[1], messages[3]):
            message["tool_calls"][0]["function"] = {"name": "apply_patch", "arguments": patch}
    async with dashboard(store_content=True, dashboard_key=SecretStr(OWNER)) as client:
        body = json.dumps({"model": MODEL, "messages": messages})
        await client.post("/v1/chat/completions", content=body, headers={"authorization": "Bearer u"})
        [listed] = (await api(client, "/conversations", OWNER))["conversations"]
        assert listed["title"] == ("cut \ufffd" if place == "first words" else "fix it")
        assert [file["name"] for file in (await api(client, "/overview", OWNER))["files"]] == [
            "a\ufffd.py" if place == "path" else "a.py"
        ]
        await api(client, f"/conversations/{listed['id']}/request", OWNER)
