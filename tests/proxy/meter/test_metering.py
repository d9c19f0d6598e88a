"""The meter and the prompt cache in the whole proxy: a client on one side, a scripted upstream on the other."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from sluice.proxy.metering import NO_MODEL
from tests.proxy.servers import DONE, Exchange, ScriptedUpstream, chunk, completion, proxy, reading_twice

MODEL = "gpt-5.2"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 600}}
COST = (400 * 1.75 + 600 * 0.175 + 50 * 14) / 1e6


def with_usage(content_type: str = "application/json") -> Any:
    async def answer(exchange: Exchange) -> None:
        if exchange.json.get("stream"):
            await exchange.start("text/event-stream")
            for word in ("hel", "lo"):
                await exchange.part(chunk(word))
            last = {"choices": [], "usage": USAGE}
            data = b"data: " + json.dumps(last).encode() + b"\n\n" + DONE
            # Cut where it hurts.
            await exchange.part(data[:30])
            await exchange.part(data[30:])
            await exchange.end()
        else:
            await exchange.whole(json.dumps({**completion(), "usage": USAGE}).encode())

    return answer


async def ask(client: httpx.AsyncClient, messages: Any = None, headers: Any = None, **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": messages or [{"role": "user", "content": "hi"}], **fields}
    return await client.post("/v1/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_answer_used_is_counted_and_priced(upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.answer = with_usage()
    async with proxy(upstream.url) as client:
        await ask(client, reading_twice(), stream=stream, stream_options={"include_usage": True})
        stats = (await client.get("/v1/stats")).json()
        conversations = (await client.get("/v1/stats/conversations")).json()["conversations"]
        turns = (await client.get(f"/v1/stats/conversations/{conversations[0]['id']}")).json()["turns"]
        metrics = (await client.get("/metrics")).text
    totals = stats["totals"]
    assert totals["cost"] == pytest.approx(COST)
    assert totals["usage"] == {
        "input_tokens": 400,
        "cache_write_5m": 0,
        "cache_write_1h": 0,
        "cache_read": 600,
        "output_tokens": 50,
        "reasoning": 0,
    }
    assert totals["tokens_in"] > totals["tokens_out"] > 0
    # A conversation that begins with a repeated read would have had to write both.
    dropped = totals["tokens_in"] - totals["tokens_out"]
    assert totals["saved"] == pytest.approx(dropped * 1.75 / 1e6)
    assert stats["arms"]["treated"]["num_turns"] == 1
    assert stats["scope"] == "this process"
    assert (conversations[0]["model"], conversations[0]["arm"], conversations[0]["upstream"]) == (
        MODEL,
        "treated",
        "default",
    )
    assert (turns[0]["cost"], turns[0]["cache_read"]) == (pytest.approx(COST), 600)
    assert 'sluice_usage_tokens_total{kind="cache_read",upstream="default"} 600.0' in metrics
    assert 'sluice_turns_total{arm="treated",status="200",upstream="default"} 1.0' in metrics


async def test_an_answer_without_usage_is_counted_as_unmetered(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        await ask(client, stream=True)
        totals = (await client.get("/v1/stats")).json()["totals"]
    assert (totals["num_turns"], totals["num_unmetered"], totals["cost"]) == (1, 1, 0)


async def test_a_check_of_the_way_is_nobodys_failure_and_one_that_is_served_is_counted(
    upstream: ScriptedUpstream,
) -> None:
    async with proxy(upstream.url) as client:
        upstream.answer = lambda exchange: exchange.whole(b'{"error": {"message": "no such model"}}', status=404)
        assert (await ask(client, model=NO_MODEL)).status_code == 404
        assert (await client.get("/v1/stats")).json()["totals"]["num_turns"] == 0
        upstream.answer = with_usage()
        assert (await ask(client, model=NO_MODEL)).status_code == 200
        assert (await client.get("/v1/stats")).json()["totals"]["num_turns"] == 1


async def test_held_out_conversations_go_through_untouched(upstream: ScriptedUpstream) -> None:
    upstream.answer = with_usage()
    async with proxy(upstream.url, holdout=1.0) as client:
        await ask(client, reading_twice())
        stats = (await client.get("/v1/stats")).json()
    assert upstream.last.json["messages"] == reading_twice()
    assert stats["arms"]["holdout"]["num_turns"] == 1
    assert stats["totals"]["saved"] == 0
    assert stats["totals"]["tokens_in"] == stats["totals"]["tokens_out"]


async def test_errors_and_hang_ups_are_turns_as_well(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(b'{"error": {"message": "no"}}', 400)

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        await ask(client)
        await client.post("/v1/chat/completions", content=b"no json")
        totals = (await client.get("/v1/stats")).json()["totals"]
    # What could not be read is no turn.
    assert (totals["num_turns"], totals["num_errors"], totals["num_unmetered"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/stats?days=0", 400, "invalid_value"),
        ("/v1/stats?days=many", 400, "invalid_value"),
        ("/v1/stats/conversations?limit=-1", 400, "invalid_value"),
        ("/v1/stats/conversations/unknown", 404, "unknown_conversation_id"),
    ],
)
async def test_bad_questions_are_named(upstream: ScriptedUpstream, path: str, status: int, code: str) -> None:
    async with proxy(upstream.url) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.redis
async def test_statistics_survive_a_restart(upstream: ScriptedUpstream, redis_url: str) -> None:
    upstream.answer = with_usage()
    for num_turns in (1, 2):
        async with proxy(upstream.url, redis_url=redis_url) as client:
            await ask(client, [{"role": "user", "content": f"question {num_turns}"}])
            stats = (await client.get("/v1/stats")).json()
        assert (stats["totals"]["num_turns"], stats["scope"]) == (num_turns, "all workers")
    assert stats["totals"]["cost"] == pytest.approx(2 * COST)


async def test_nothing_that_was_said_and_no_credential_is_logged_or_shown(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    planted = {
        "message": "planted-message-4711",
        "answer": "planted-answer-4712",
        "bearer": "planted-bearer-4713",
        "key": "planted-key-4714",
        "field": "planted-field-4715",
        "error": "planted-error-4716",
    }

    async def answer(exchange: Exchange) -> None:
        if b"fail" in exchange.body:
            await exchange.whole(json.dumps({"error": {"message": planted["error"]}}).encode(), 500)
        else:
            await exchange.whole(json.dumps({**completion(planted["answer"]), "usage": USAGE}).encode())

    upstream.answer = answer
    shown = []
    caplog.set_level(logging.DEBUG)
    async with proxy(upstream.url, log_level="debug", answer_cache_ttl_s=60) as client:
        headers = {"authorization": f"Bearer {planted['bearer']}", "x-api-key": planted["key"]}
        for text in (planted["message"], planted["message"], "fail"):
            await ask(
                client, [{"role": "user", "content": text}], headers, temperature=0, user=planted["field"], seed=1
            )
        await client.post("/v1/chat/completions", content=b'{"x": "planted-broken-4717', headers=headers)
        shown += [(await client.get(path)).text for path in ("/v1/stats", "/v1/stats/conversations", "/metrics")]
        (conversation, *_) = json.loads(shown[1])["conversations"]
        shown.append((await client.get(f"/v1/stats/conversations/{conversation['id']}")).text)
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("sluice")]
    assert any("tokens_in=" in line for line in logged)
    assert not [line for line in (*logged, *shown) if "planted" in line]


async def test_the_same_request_is_answered_from_the_prompt_cache(upstream: ScriptedUpstream) -> None:
    upstream.answer = with_usage()
    async with proxy(upstream.url, answer_cache_ttl_s=60) as client:
        for stream in (False, True):
            options = {"temperature": 0, "stream": stream, "stream_options": {"include_usage": True}}
            first = await ask(client, **options)
            again = await ask(client, **options)
            assert "x-sluice-answer" not in first.headers
            assert again.headers["x-sluice-answer"] == "hit"
            assert again.content.count(b'"sluice_answer":"hit",') == 1
            assert again.content.replace(b'"sluice_answer":"hit",', b"") == first.content
            assert again.headers["content-type"] == first.headers["content-type"]
        other = await ask(client, temperature=0, headers={"authorization": "Bearer another"})
        assert "x-sluice-answer" not in other.headers
        stats = (await client.get("/v1/stats")).json()
    assert len(upstream.exchanges) == 3
    assert stats["totals"]["cost"] == pytest.approx(3 * COST)
    assert stats["answers"] == {"num_hits": 2, "num_shared": 0, "saved": pytest.approx(2 * COST)}


async def test_only_repeatable_requests_are_and_no_store_is_honoured(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url, answer_cache_ttl_s=60) as client:
        no_store, no_cache = {"cache-control": "no-store"}, {"cache-control": "no-cache"}
        for fields in ({}, {"temperature": 0.5}):
            for _ in range(2):
                await ask(client, **fields)
        assert len(upstream.exchanges) == 4
        for headers in (no_store, no_store, None, no_cache):
            await ask(client, temperature=0, headers=headers)
        assert len(upstream.exchanges) == 8
        assert (await ask(client, temperature=0)).headers["x-sluice-answer"] == "hit"
    async with proxy(upstream.url) as client:
        for _ in range(2):
            await ask(client, temperature=0)
    assert len(upstream.exchanges) == 10


async def test_twins_share_one_call_and_one_that_hangs_up_spoils_nothing(upstream: ScriptedUpstream) -> None:
    go_on = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("one"))
        await go_on.wait()
        await exchange.part(b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n" + DONE)
        await exchange.end()

    upstream.answer = answer
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "stream": True}

    async with proxy(upstream.url, answer_cache_ttl_s=60) as client:
        async with client.stream("POST", "/v1/chat/completions", json=body) as first:
            assert await anext(first.aiter_raw()) == chunk("one")
            twin = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
            async with client.stream("POST", "/v1/chat/completions", json=body) as second:
                # It gets what has come so far while the upstream still holds the rest back.
                assert await anext(second.aiter_raw()) == chunk("one")
                assert second.headers["x-sluice-answer"] == "shared"
        # The first and the second have hung up.
        go_on.set()
        assert (await twin).content.endswith(DONE)
        assert (await client.post("/v1/chat/completions", json=body)).headers["x-sluice-answer"] == "hit"
        stats = (await client.get("/v1/stats")).json()
    assert len(upstream.exchanges) == 1
    assert stats["totals"]["cost"] == pytest.approx(COST)


async def test_messages_are_metered_with_their_breakpoints(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        usage = {"input_tokens": 4, "cache_creation_input_tokens": 96, "cache_read_input_tokens": 900}
        start = {"type": "message_start", "message": {"usage": {**usage, "output_tokens": 1}}}
        delta = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 20}}
        await exchange.start("text/event-stream")
        for event in (start, delta, {"type": "message_stop"}):
            await exchange.part(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        await exchange.end()

    upstream.answer = answer
    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    body = {
        "model": "claude-sonnet-4",
        "max_tokens": 10,
        "stream": True,
        "messages": [{"role": "user", "content": [block]}],
    }
    async with proxy(upstream.url, provider="anthropic") as client:
        await client.post("/v1/messages", json=body)
        totals = (await client.get("/v1/stats")).json()["totals"]
    assert totals["cost"] == pytest.approx((4 * 3 + 96 * 3.75 + 900 * 0.3 + 20 * 15) / 1e6)
    assert totals["usage"]["output_tokens"] == 20


async def test_responses_are_metered(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        usage = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 64}, "output_tokens": 5}
        await exchange.whole(json.dumps({"id": "resp_1", "object": "response", "output": [], "usage": usage}).encode())

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        await client.post("/v1/responses", json={"model": MODEL, "input": "hi"})
        totals = (await client.get("/v1/stats")).json()["totals"]
    assert (totals["usage"]["input_tokens"], totals["usage"]["cache_read"]) == (36, 64)
