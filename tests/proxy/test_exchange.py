"""The main job through real sockets: the real client on one side, a recording upstream on the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, NotFoundError

from sluice.proxy.upstreams.http_answer import HttpAnswer
from tests.proxy.servers import DONE, Exchange, ScriptedUpstream, chunk, completion, proxy, reading_twice

HELLO = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[httpx.AsyncClient]:
    async with proxy(upstream.url) as client:
        yield client


@pytest_asyncio.fixture
async def openai(client: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="sk-test", max_retries=0) as openai:
        yield openai


async def test_a_plain_completion(openai: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    answer = await openai.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.choices[0].message.content == "hello"
    assert upstream.last.path == "/v1/chat/completions"
    assert upstream.last.header("authorization") == b"Bearer sk-test"


async def test_a_streamed_completion(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    assert "".join([event.choices[0].delta.content or "" async for event in stream]) == "hello"


async def test_tools_and_all_other_fields_pass_unchanged(openai: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    called = completion()
    call = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": "{}"}}
    called["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}

    async def answer(exchange: Exchange) -> None:
        await exchange.whole(json.dumps(called).encode())

    upstream.answer = answer
    tools = [{"type": "function", "function": {"name": "Read", "parameters": {"type": "object", "properties": {}}}}]
    got = await openai.chat.completions.create(
        model="gpt-4o",
        messages=reading_twice(),
        tools=tools,
        tool_choice="auto",
        temperature=0.5,
        extra_body={"provider_field": {"deep": [1, 2.50]}},
    )
    assert got.choices[0].message.tool_calls[0].function.name == "Read"
    sent = upstream.last.json
    assert sent["tools"] == tools
    assert (sent["tool_choice"], sent["temperature"]) == ("auto", 0.5)
    assert sent["provider_field"] == {"deep": [1, 2.50]}
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_a_second_read_leaves_smaller_and_headers_say_so(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    messages = reading_twice()
    answer = await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": messages})
    sent = upstream.last.json["messages"]
    assert sent[:4] == messages[:4]
    assert "40 lines as in message 3" in sent[4]["content"]
    assert answer.headers["x-sluice-mode"] == "balanced"
    assert float(answer.headers["x-sluice-overhead-ms"]) > 0
    assert "x-sluice-bypass" not in answer.headers
    assert 0 < int(answer.headers["x-sluice-tokens-out"]) < int(answer.headers["x-sluice-tokens-in"])


async def test_only_the_changed_message_differs_from_the_clients_bytes(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    messages = [json.dumps(message, indent=1) for message in reading_twice()]
    before, after = '{ "stream" : false,\t"messages":[ ', ' ] , "model": "gpt-4o",\r\n "n":1.0 }  '
    await client.post("/v1/chat/completions", content=before + " ,\n".join(messages) + after)
    sent = upstream.last.body.decode()
    assert sent.startswith(before + " ,\n".join(messages[:4]) + " ,\n")
    assert sent.endswith(after)
    assert json.loads(sent)["messages"][4]["content"].endswith("40 lines as in message 3]")


async def test_where_nothing_is_dropped_the_clients_bytes_go_out(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    body = '{"model": "m",  "messages":[{"content": "\\u00fc ü", "role":"user"}], "x": 1e2}'.encode()
    await client.post("/v1/chat/completions", content=body)
    assert upstream.last.body == body


async def test_text_cut_in_the_middle_of_an_emoji_costs_the_other_messages_nothing(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    messages = reading_twice()
    messages[0]["content"] = "cut \ud83d"
    answer = await client.post("/v1/chat/completions", content=json.dumps({"model": "m", "messages": messages}))
    assert upstream.last.json["messages"][:4] == messages[:4]
    assert upstream.last.json["messages"][4]["content"].endswith("40 lines as in message 3]")
    assert "x-sluice-bypass" not in answer.headers


async def test_mode_off_forwards_any_bytes(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    for body in (json.dumps({"model": "m", "messages": reading_twice()}).encode(), b"no json", b""):
        answer = await client.post("/v1/chat/completions", content=body, headers={"x-sluice-mode": "off"})
        assert upstream.last.body == body
        assert answer.headers["x-sluice-mode"] == "off"


async def test_an_unknown_mode_is_named(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    answer = await client.post(
        "/v1/chat/completions", json={"model": "m", "messages": HELLO}, headers={"x-sluice-mode": "wild"}
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "'wild'" in error["message"]
    assert (error["param"], error["code"]) == ("x-sluice-mode", "invalid_value")
    assert not upstream.exchanges


async def test_the_upstreams_errors_pass_byte_for_byte(
    client: httpx.AsyncClient, openai: AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    body = b'{"error": {"message": "The model `nope` does not exist",  "code": "model_not_found"}}'

    async def answer(exchange: Exchange) -> None:
        await exchange.whole(body, 404, (b"x-request-id", b"r1"), (b"retry-after", b"7"))

    upstream.answer = answer
    got = await client.post("/v1/chat/completions", json={"model": "nope", "messages": HELLO})
    assert (got.status_code, got.content) == (404, body)
    assert (got.headers["x-request-id"], got.headers["retry-after"]) == ("r1", "7")
    with pytest.raises(NotFoundError, match="nope"):
        await openai.chat.completions.create(model="nope", messages=HELLO)


async def test_events_are_handed_on_as_they_come(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    go_on = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("one"))
        await go_on.wait()
        await exchange.part(chunk("two"))
        await exchange.part(DONE)
        await exchange.end()

    upstream.answer = answer
    body = {"model": "m", "messages": HELLO, "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as got:
        parts = got.aiter_raw()
        assert await anext(parts) == chunk("one")
        # The upstream holds the second event back until the first has arrived here.
        go_on.set()
        assert b"".join([part async for part in parts]) == chunk("two") + DONE


async def test_a_client_that_hangs_up_in_mid_stream_cancels_the_upstream(
    openai: AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("one"))
        await asyncio.Event().wait()

    upstream.answer = answer
    stream = await openai.chat.completions.create(model="m", messages=HELLO, stream=True)
    assert (await anext(aiter(stream))).choices[0].delta.content == "one"
    await stream.close()
    await asyncio.wait_for(upstream.last.hung_up.wait(), 10)


async def test_a_client_that_hangs_up_before_the_first_byte_cancels_the_upstream(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    async def answer(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    upstream.answer = answer
    asking = asyncio.create_task(client.post("/v1/chat/completions", json={"model": "m", "messages": HELLO}))
    await asyncio.wait_for(upstream.arrived.wait(), 10)
    asking.cancel()
    await asyncio.wait_for(upstream.last.hung_up.wait(), 10)
    metrics = (await client.get("/metrics")).text
    assert 'sluice_requests_total{status="499"} 1.0' in metrics


async def test_a_fault_of_ours_behind_the_head_cuts_the_answer_and_is_counted_and_logged(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_down(answer: HttpAnswer) -> bytes:
        raise KeyError("hush")

    monkeypatch.setattr(HttpAnswer, "read", break_down)
    with pytest.raises(httpx.RemoteProtocolError), caplog.at_level("ERROR", "sluice.proxy"):
        await client.post("/v1/chat/completions", json={"model": "m", "messages": HELLO})
    assert 'sluice_requests_total{status="200"} 1.0' in (await client.get("/metrics")).text
    (line,) = (message for message in caplog.messages if message.startswith("chat "))
    assert "status=200" in line
    assert "error=KeyError@" in line
    assert "hush" not in line


async def test_query_strings_and_models_pass(
    client: httpx.AsyncClient, openai: AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    await client.post("/v1/chat/completions?api-version=1%2F2", json={"model": "m", "messages": HELLO})
    assert upstream.last.query == b"api-version=1%2F2"
    assert [model.id for model in (await openai.models.list()).data] == ["gpt-4o"]
    assert upstream.last.header("authorization") == b"Bearer sk-test"


async def test_an_upstream_with_a_path_and_a_trailing_v1(upstream: ScriptedUpstream) -> None:
    async with proxy(f"{upstream.url}/api/v1/") as client:
        await client.post("/v1/chat/completions", json={"model": "m", "messages": HELLO})
    assert upstream.last.path == "/api/v1/chat/completions"


async def test_a_body_that_cannot_be_unpacked_is_forwarded_as_it_is(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    answer = await client.post("/v1/chat/completions", content=b"\x1f\x8b...", headers={"content-encoding": "gzip"})
    assert (upstream.last.body, upstream.last.header("content-encoding")) == (b"\x1f\x8b...", b"gzip")
    assert answer.headers["x-sluice-bypass"] == "content-encoding"


async def test_many_at_once_do_not_mix(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(json.dumps(completion(exchange.json["messages"][0]["content"])).encode())

    upstream.answer = answer
    texts = [f"number {number}" for number in range(40)]
    answers = await asyncio.gather(
        *(
            client.post("/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": text}]})
            for text in texts
        )
    )
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers] == texts


@pytest.mark.parametrize("value", ["0", "-5", "many", "1.5", "9" * 5000])
async def test_a_budget_that_is_none_is_refused(client: httpx.AsyncClient, value: str) -> None:
    body = {"model": "gpt-4o", "messages": HELLO}
    answer = await client.post("/v1/chat/completions", json=body, headers={"x-sluice-budget-tokens": value})
    assert answer.status_code == 400
    assert value[:40] in answer.json()["error"]["message"]


async def test_a_field_that_stands_twice_is_nobodys_to_choose_from(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    messages = json.dumps(reading_twice()).encode()
    body = b'{"model": "m", "messages": %b, "messages": %b}' % (messages, messages)
    answer = await client.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.headers["x-sluice-bypass"]) == (200, "duplicate-key")
    assert upstream.last.body == body
