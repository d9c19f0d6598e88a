"""What happens when a model refuses a request as too long: it is made shorter, once; else the refusal is the answer."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import httpx
import pytest

from tests.compressor.conversations import Json, call, file_lines, numbered, result
from tests.proxy.servers import Answer, Exchange, ScriptedUpstream, answer_plainly, proxy

LIMIT_BYTES = 40_000
REFUSAL = {
    "error": {
        "message": "This model's maximum context length is 12000 tokens. However, your messages are too long.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}


async def refuse_long_ones(exchange: Exchange) -> None:
    if len(exchange.body) > LIMIT_BYTES:
        await exchange.whole(json.dumps(REFUSAL).encode(), 400)
    else:
        await answer_plainly(exchange)


def reads(num: int) -> list[Json]:
    messages: list[Json] = [{"role": "user", "content": "go"}]
    for index in range(num):
        messages += [
            call(f"c{index}", "Read", file_path=f"f{index}.py"),
            result(f"c{index}", numbered(file_lines(100, f"t{index}"))),
        ]
    return messages


async def test_a_refused_request_is_made_shorter_and_stays_so(upstream: ScriptedUpstream) -> None:
    upstream.answer = refuse_long_ones
    messages = reads(20)
    async with proxy(upstream.url, mode="balanced") as client:
        for index in range(1, 20):
            await client.post("/v1/chat/completions", json={"model": "m", "messages": messages[: 2 * index + 1]})
        first = await client.post("/v1/chat/completions", json={"model": "m", "messages": messages})
        num_before = len(upstream.exchanges)
        again = await client.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    assert first.status_code == again.status_code == 200
    assert any(len(exchange.body) > LIMIT_BYTES for exchange in upstream.exchanges), "none was refused"
    assert len(upstream.exchanges) == num_before + 1, "the shorter form is known by now"
    assert len(upstream.last.body) <= LIMIT_BYTES
    assert [m["role"] for m in upstream.last.json["messages"]] == [m["role"] for m in messages]


async def test_a_refusal_that_breaks_off_stays_a_refusal(upstream: ScriptedUpstream) -> None:
    async def break_off(exchange: Exchange) -> None:
        await exchange.start("application/json", 400, (b"content-length", b"100"))
        await exchange.part(b'{"error"')

    upstream.answer = break_off
    async with proxy(upstream.url, mode="balanced") as client:
        answer = await client.post("/v1/chat/completions", json={"model": "m", "messages": reads(2)})
    assert (answer.status_code, answer.content) == (400, b"")


async def test_what_cannot_be_made_shorter_is_the_models_refusal(upstream: ScriptedUpstream) -> None:
    upstream.answer = refuse_long_ones
    messages = [{"role": "user", "content": "the words of a person " * 4_000}]
    async with proxy(upstream.url, mode="balanced") as client:
        answer = await client.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    assert answer.status_code == 400
    assert answer.json() == REFUSAL
    assert len(upstream.exchanges) == 1


def counting(limit: int, said: str) -> Answer:
    """A model that takes so many tokens in all, four bytes each, the answer's reserve counted."""

    async def answer(exchange: Exchange) -> None:
        num_tokens, num_reserved = len(exchange.body) // 4, exchange.json.get("max_tokens", 0)
        if num_tokens + num_reserved > limit:
            message = said.format(num_tokens=num_tokens, num_reserved=num_reserved, limit=limit)
            await exchange.whole(json.dumps({"error": {"message": message}}).encode(), 400)
        else:
            await answer_plainly(exchange)

    return answer


async def talk(client: httpx.AsyncClient, who: str, num: int, **fields: int) -> list[httpx.Response]:
    """Hold a conversation of so many turns; the answers."""
    messages = [{"role": "user", "content": f"I am {who}"}, *reads(num)[1:]]
    return [
        await client.post(
            "/v1/chat/completions",
            json={"model": "m", **fields, "messages": messages[: 2 * index + 1]},
            headers={"authorization": f"Bearer {who}"},
        )
        for index in range(1, num + 1)
    ]


@pytest.mark.parametrize(
    ("said", "limit", "reserve"),
    [
        ("exceed context limit: {num_tokens} + {num_reserved} > {limit}", 60_000, 40_000),
        ("Your input exceeds the context window of this model.", 60_000, 40_000),
    ],
)
async def test_what_one_tenant_is_refused_for_bounds_no_other(
    upstream: ScriptedUpstream, said: str, limit: int, reserve: int
) -> None:
    upstream.answer = counting(limit, said)
    async with proxy(upstream.url, mode="balanced") as client:
        greedy = await talk(client, "a", 20, max_tokens=reserve)
        assert any("x-sluice-epoch" in answer.headers for answer in greedy), "nothing had to be made shorter"
        num_before = len(upstream.exchanges)
        modest = await talk(client, "b", 20)
    assert [answer.status_code for answer in modest] == [200] * 20
    assert not [answer for answer in modest if "x-sluice-epoch" in answer.headers]
    bodies = [exchange.json["messages"] for exchange in upstream.exchanges[num_before:]]
    assert len(bodies) == 20
    for before, after in pairwise(bodies):
        assert after[: len(before)] == before, "the prefix is kept"


async def test_what_a_model_says_that_it_takes_spares_others_the_refusal(upstream: ScriptedUpstream) -> None:
    upstream.answer = counting(15_000, "maximum context length is 12000 tokens")
    async with proxy(upstream.url, mode="balanced") as client:
        for who, is_refused in (("a", True), ("b", False)):
            num_before = len(upstream.exchanges)
            answers = await talk(client, who, 20)
            assert [answer.status_code for answer in answers] == [200] * 20
            assert any("x-sluice-epoch" in answer.headers for answer in answers)
            assert (len(upstream.exchanges) - num_before > 20) is is_refused


@pytest.mark.parametrize("is_long", [True, False])
async def test_a_refusal_that_is_long_or_slow_is_handed_on_whole(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    whole = b'{"error": "' + b"x" * (2**20 if is_long else 9) + b'"}'

    async def refuse(exchange: Exchange) -> None:
        await exchange.start("application/json", 400, (b"content-length", b"%d" % len(whole)))
        await exchange.part(whole[:5])
        if not is_long:
            await asyncio.sleep(0.3)
        await exchange.part(whole[5:])
        await exchange.end()

    if not is_long:
        monkeypatch.setattr("sluice.proxy.upstreams.answers._HOLD_TIMEOUT_S", 0.1)
    upstream.answer = refuse
    async with proxy(upstream.url, mode="balanced") as client:
        answer = await client.post("/v1/chat/completions", json={"model": "m", "messages": reads(2)})
    assert (answer.status_code, answer.content) == (400, whole)
    assert len(upstream.exchanges) == 1
