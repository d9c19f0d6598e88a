"""What happens when a model refuses a request as too long: it is made shorter, once; else the refusal is the answer."""

from __future__ import annotations

import json

from tests.compressor.conversations import Json, call, file_lines, numbered, result
from tests.proxy.servers import Exchange, ScriptedUpstream, answer_plainly, proxy

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
