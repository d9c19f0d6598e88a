"""What answers take of the budgets of a key, in the whole proxy."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest

from sluice.compressor import OPENAI_CHAT
from sluice.proxy.access.keys import make_key
from sluice.proxy.charging import count_sent
from sluice.proxy.tokens import TokenCounter
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.wires import CHAT, COMPLETIONS, RESPONSES
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy, reading_twice
from tests.proxy.test_batches import form, line

OFF = {"x-sluice-mode": "off"}
HI = [{"role": "user", "content": "hi " * 50}]
SAID = {"model": "gpt-4o", "messages": HI}
DUPLICATE = json.dumps(SAID)[:-1] + ', "model": "gpt-4o"}'
NOT_A_NUMBER = json.dumps(SAID)[:-1] + ', "seed": NaN}'
JSON = {"content-type": "application/json"}


async def without_usage(exchange: Exchange) -> None:
    await exchange.whole(b'{"object": "whatever"}')


async def refuses(client: httpx.AsyncClient) -> bool:
    """Whether the key's budget is spent, within a time; asking for models takes nothing of it."""
    async with asyncio.timeout(10):
        while (answer := await client.get("/v1/models")).status_code != 429:
            pass
    return bool(answer.json()["error"]["code"] == "budget_spent")


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/v1/chat/completions", OFF, SAID),
        ("/v1/chat/completions", OFF, DUPLICATE),
        ("/v1/chat/completions", OFF, NOT_A_NUMBER),
        ("/v1/chat/completions", OFF | {"content-encoding": "gzip"}, gzip.compress(NOT_A_NUMBER.encode(), mtime=0)),
        ("/v1/chat/completions", {"content-encoding": "br"}, b"\0" * 100),
        ("/v1/chat/completions", {}, SAID),
        ("/v1/responses", OFF, {"model": "gpt-4o", "input": "hi " * 50}),
        ("/v1/responses", {}, {"model": "gpt-4o", "input": "hi " * 50}),
        ("/v1/messages", OFF, SAID | {"max_tokens": 1}),
        ("/v1/completions", {}, {"model": "gpt-4o", "prompt": "hi " * 50}),
        ("/v1/completions", OFF, {"model": "gpt-4o", "prompt": [[1] * 50, [2] * 50]}),
        # what is passed on
        ("/v1/embeddings", {}, {"model": "e", "input": "hi " * 50}),
        (
            "/v1/embeddings",
            {"content-encoding": "gzip"},
            gzip.compress(b'{"model": "e", "input": "%b"}' % (b"hi " * 50), mtime=0),
        ),
        ("/v1/embeddings", {"content-encoding": "br"}, b"\0" * 100),
        (
            "/v1/messages/batches",
            OFF,
            {"requests": [{"custom_id": "a", "params": SAID | {"max_tokens": 1}}]},
        ),
    ],
)
async def test_answers_without_usage_are_charged_with_what_was_sent(
    upstream: ScriptedUpstream, path: str, headers: dict[str, str], body: Any
) -> None:
    upstream.answer = without_usage
    key, text = make_key("ann", tokens_per_day=50)
    async with proxy(upstream.url, keys=(key,)) as client:
        client.headers["x-sluice-key"] = text
        answer = await client.post(path, content=encoded(body), headers=JSON | headers)
        assert answer.status_code == 200
        assert upstream.last.body == encoded(body)
        assert await refuses(client)


@pytest.mark.parametrize("mode", ["off", "safe"])
async def test_a_stream_that_reports_nothing_is_charged(upstream: ScriptedUpstream, mode: str) -> None:
    key, text = make_key("ann", dollars_per_day=1e-6)
    async with proxy(upstream.url, keys=(key,), mode=mode) as client:
        client.headers["x-sluice-key"] = text
        answer = await client.post("/v1/chat/completions", json=SAID | {"stream": True})
        assert answer.status_code == 200
        assert await refuses(client)


async def test_the_upload_of_a_batch_is_charged_and_another_is_not(upstream: ScriptedUpstream) -> None:
    upstream.answer = without_usage
    key, text = make_key("ann", tokens_per_day=50)
    async with proxy(upstream.url, keys=(key,)) as client:
        client.headers["x-sluice-key"] = text
        for purpose in (b"fine-tune", b"batch"):
            body, content_type = form("\n".join([line(1), "nonsense", line(2)]).encode(), purpose)
            answer = await client.post("/v1/files", content=body, headers={"content-type": content_type})
            assert answer.status_code == 200
        assert await refuses(client)


async def test_nothing_is_charged_for_what_is_refused_or_no_work(upstream: ScriptedUpstream) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.whole(b'{"error": {"message": "no"}}', 400)

    (key, text), (others, others_text) = (make_key(name, tokens_per_day=1) for name in ("ann", "bob"))
    async with proxy(upstream.url, keys=(key, others), mode="off") as client:
        # With the tokenizer loaded, a charge would come at once.
        client.headers["x-sluice-key"] = others_text
        await client.post("/v1/chat/completions", json=SAID)
        assert await refuses(client)
        client.headers["x-sluice-key"] = text
        upstream.answer = refuse
        for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/chat/completions"):
            assert (await client.post(path, json=SAID)).status_code == 400
        upstream.answer = without_usage
        for path in ("/v1/moderations", "/v1/responses/input_tokens"):
            assert (await client.post(path, json={"model": "gpt-4o", "input": "hi " * 50})).status_code == 200
        for path in ("/v1/batches", "/v1/responses/resp_1/cancel"):
            assert (await client.post(path, json={"input_file_id": "file-1"})).status_code == 200
        form_body, content_type = form(b'{"a": 1}', b"fine-tune")
        for _ in range(2):
            uploaded = await client.post("/v1/files", content=form_body, headers={"content-type": content_type})
            assert uploaded.status_code == 200
        for _ in range(20):
            assert (await client.get("/v1/models")).status_code == 200


async def test_an_answer_out_of_the_prompt_cache_takes_nothing(upstream: ScriptedUpstream) -> None:
    key, text = make_key("ann", tokens_per_day=8)
    async with proxy(upstream.url, keys=(key,), answer_cache_ttl_s=60) as client:
        client.headers["x-sluice-key"] = text
        for _ in range(5):  # four tokens each, were they asked of the upstream
            assert (await client.post("/v1/chat/completions", json=SAID | {"temperature": 0})).status_code == 200


async def test_nothing_is_counted_for_a_key_without_budgets(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []

    async def count(self: TokenCounter, model: str, *rest: object) -> list[int]:
        counted.append(model)
        return [1]

    monkeypatch.setattr(TokenCounter, "count", count)
    monkeypatch.setattr(TokenCounter, "count_texts", count)
    upstream.answer = without_usage
    key, text = make_key("ann", requests_per_minute=100)
    async with proxy(upstream.url, keys=(key,), mode="off") as client:
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            await client.post(path, json=SAID, headers={"x-sluice-key": text})
    assert not counted


@pytest.mark.parametrize(
    ("wire", "body", "expected"),
    [
        (COMPLETIONS, {"model": "m", "prompt": "hello world"}, 2),
        (COMPLETIONS, {"model": "m", "prompt": ["hello world", "hello"]}, 3),
        (COMPLETIONS, {"model": "m", "prompt": [1, 2, 3]}, 3),
        (COMPLETIONS, {"model": "m", "prompt": [[1, 2, 3], [4]]}, 4),
        (COMPLETIONS, {"model": "m", "prompt": "hello world \ud800"}, 3),
        (COMPLETIONS, {"model": "m"}, 0),
        (RESPONSES, {"model": "m", "input": "hello world"}, 2),
        (CHAT, {"model": "m", "messages": [{"role": "user", "content": "hello world"}]}, 6),
    ],
)
async def test_a_prompt_counts_as_the_model_reads_it(wire: Wire, body: Any, expected: int) -> None:
    counter = TokenCounter()
    parsed = wire.parse(json.dumps(body).encode())
    assert await count_sent(counter, wire, parsed, parsed.messages) == expected
    counter.close()


async def test_what_was_sent_is_counted_and_not_what_came(upstream: ScriptedUpstream) -> None:
    upstream.answer = without_usage
    counter = TokenCounter()
    messages = [json.dumps(message).encode() for message in reading_twice()]
    (num_came,) = await counter.count("gpt-4o", OPENAI_CHAT, messages)
    counter.close()
    key, text = make_key("ann", tokens_per_day=num_came)
    async with proxy(upstream.url, keys=(key,), mode="safe") as client:
        client.headers["x-sluice-key"] = text
        for _ in range(2):
            answer = await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": reading_twice()})
            assert answer.status_code == 200, "the first took less than all"
        assert num_came / 2 < int(answer.headers["x-sluice-tokens-out"]) < num_came
        assert await refuses(client)
