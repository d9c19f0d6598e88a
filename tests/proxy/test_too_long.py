"""What happens when a model refuses a request as too long: it is made shorter, once; else the refusal is the answer."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest

from sluice.compressor import Compressor, MemoryStore
from sluice.proxy.overflow import MAX_ERROR_BYTES
from tests.compressor.conversations import Json, call, encode, file_lines, numbered, result
from tests.compressor.in_dialects import SPOKEN, prompt_of
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


def refusing(refusal: Json, encoding: str | None = None) -> Answer:
    """A model that takes so many bytes, and says so plainly or packed."""
    said = json.dumps(refusal).encode()

    async def answer(exchange: Exchange) -> None:
        if len(exchange.body) <= LIMIT_BYTES:
            await answer_plainly(exchange)
        elif encoding is None:
            await exchange.whole(said, 400)
        else:
            await exchange.whole(gzip.compress(said), 400, (b"content-encoding", encoding.encode()))

    return answer


refuse_long_ones = refusing(REFUSAL)


def reads(num: int) -> list[Json]:
    messages: list[Json] = [{"role": "user", "content": "go"}]
    for index in range(num):
        messages += [
            call(f"c{index}", "Read", file_path=f"f{index}.py"),
            result(f"c{index}", numbered(file_lines(100, f"t{index}"))),
        ]
    return messages


@pytest.mark.parametrize(
    ("name", "stream", "encoding"), [("chat", False, None), ("chat", True, "gzip"), ("messages", True, "gzip")]
)
async def test_a_refused_request_is_made_shorter_and_stays_so(
    upstream: ScriptedUpstream, name: str, stream: bool, encoding: str | None
) -> None:
    spoken, messages = SPOKEN[name], reads(20)
    upstream.answer = refusing(REFUSAL, encoding)

    async def ask(chat: list[Json]) -> httpx.Response:
        body = {"model": "m", "max_tokens": 9, "stream": stream, "messages": spoken.say(chat)}
        return await client.post(f"/v1/{'chat/completions' if name == 'chat' else name}", json=body)

    def prompt() -> list[bytes]:
        return prompt_of([encode(message) for message in upstream.last.json["messages"]], spoken.dialect)

    async with proxy(upstream.url, mode="balanced") as client:
        for index in range(1, 20):
            await ask(messages[: 2 * index + 1])
        first = await ask(messages)
        num_before = len(upstream.exchanges)
        again = await ask(messages)
        shorter = prompt()
        after = await ask([*messages, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}])
    assert first.status_code == again.status_code == after.status_code == 200
    assert any(len(exchange.body) > LIMIT_BYTES for exchange in upstream.exchanges), "none was refused"
    assert len(upstream.exchanges) == num_before + 2, "the shorter form is known by now"
    assert len(upstream.last.body) <= LIMIT_BYTES
    assert prompt()[:-2] == shorter, "and what follows goes on from it"
    sent = upstream.last.json["messages"]
    assert [m["role"] for m in sent[:-2]] == [m["role"] for m in spoken.say(messages)]


async def test_a_refusal_that_unpacks_to_more_than_is_read_stays_a_refusal(upstream: ScriptedUpstream) -> None:
    upstream.answer = refusing({**REFUSAL, "padding": "x" * MAX_ERROR_BYTES}, "gzip")
    async with proxy(upstream.url, mode="balanced") as client:
        answers = await talk(client, "a", 20)
    assert answers[-1].status_code == 400
    assert answers[-1].json()["error"] == REFUSAL["error"]
    assert len(upstream.exchanges) == len(answers), "none is asked again"


class BrokenWhereRefused(Compressor):
    async def compress(self, messages: Sequence[bytes], **options: Any) -> Any:
        if options.get("is_refused"):
            raise RuntimeError(f"cannot read {messages!r}")
        return await super().compress(messages, **options)


async def test_where_making_it_shorter_fails_the_refusal_stands(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answer = refuse_long_ones
    options = {"compressor": BrokenWhereRefused(MemoryStore())}
    async with proxy(upstream.url, mode="balanced", app_options=options) as client:
        answers = await talk(client, "a", 20)
    assert (answers[-1].status_code, answers[-1].json()) == (400, REFUSAL)
    assert len(upstream.exchanges) == len(answers)
    assert "compression_failed" in caplog.text
    assert "compute(" not in caplog.text


async def test_where_the_upstream_edits_the_history_its_refusal_stands(upstream: ScriptedUpstream) -> None:
    upstream.answer = refuse_long_ones
    body = {"model": "m", "max_tokens": 9, "messages": SPOKEN["messages"].say(reads(20))}
    edits = {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}
    async with proxy(upstream.url, mode="balanced") as client:
        refused = await client.post("/v1/messages", json={**body, **edits})
        assert (refused.status_code, refused.json()) == (400, REFUSAL)
        assert len(upstream.exchanges) == 1
        shortened = await client.post("/v1/messages", json=body)
    assert shortened.status_code == 200, "without, it can be made shorter"


async def test_the_lower_of_a_clients_budget_and_the_models_window_is_kept_to(upstream: ScriptedUpstream) -> None:
    """In estimated tokens, four characters each."""
    window = 12_000
    upstream.answer = counting(15_000, f"maximum context length is {window} tokens")

    async def most_of(client: httpx.AsyncClient, who: str, budget: int | None) -> int:
        num_before = len(upstream.exchanges)
        answers = await talk(client, who, 20, budget=budget)
        assert [answer.status_code for answer in answers] == [200] * 20
        assert any("x-sluice-epoch" in answer.headers for answer in answers)
        return max(len(exchange.body) // 4 for exchange in upstream.exchanges[num_before:])

    async with proxy(upstream.url, mode="balanced") as client:
        assert await most_of(client, "a", None) > 15_000, "one is refused, and names the window"
        at_window = await most_of(client, "b", None)
        assert at_window <= 1.1 * window
        assert await most_of(client, "c", 10**9) == at_window, "a budget that is higher lifts nothing"
        assert await most_of(client, "d", window // 2) <= 1.1 * window // 2


async def test_what_is_counted_is_what_was_answered_not_what_was_refused(upstream: ScriptedUpstream) -> None:
    upstream.answer = refuse_long_ones
    messages = reads(20)
    sums, num_refused = {"in": 0, "out": 0}, 0
    async with proxy(upstream.url, mode="balanced") as client:
        for index in range(14, 21):
            body = {"model": "m", "messages": messages[: 2 * index + 1]}
            num_before = len(upstream.exchanges)
            first = await client.post("/v1/chat/completions", json=body)
            num_refused += len(upstream.exchanges) - num_before - 1
            again = await client.post("/v1/chat/completions", json=body)
            assert upstream.exchanges[-1].body == upstream.exchanges[-2].body
            for side in sums:
                name = f"x-sluice-tokens-{side}"
                assert first.headers[name] == again.headers[name]
                sums[side] += int(first.headers[name]) + int(again.headers[name])
        totals = (await client.get("/v1/stats")).json()["totals"]
        metrics = (await client.get("/metrics")).text
    assert num_refused > 0
    for side, num in sums.items():
        assert totals[f"tokens_{side}"] == num
        assert f"sluice_tokens_{side}_total {float(num)}" in metrics


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


async def talk(
    client: httpx.AsyncClient, who: str, num: int, *, budget: int | None = None, **fields: int
) -> list[httpx.Response]:
    """Hold a conversation of so many turns, each within so many tokens; the answers."""
    headers = {"authorization": f"Bearer {who}"}
    if budget is not None:
        headers["x-sluice-budget-tokens"] = str(budget)
    messages = [{"role": "user", "content": f"I am {who}"}, *reads(num)[1:]]
    return [
        await client.post(
            "/v1/chat/completions",
            json={"model": "m", **fields, "messages": messages[: 2 * index + 1]},
            headers=headers,
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
