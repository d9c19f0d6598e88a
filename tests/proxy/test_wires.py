"""Real clients on every wire, in whole conversations with tools, streamed and not."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio
from anthropic import APIStatusError, AsyncAnthropic
from openai import APIError, AsyncOpenAI

from sluice.compressor import ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES, Dialect, MemoryStore
from tests.proxy.scripts import ReadingModel
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy, reading_twice

FILE = reading_twice()[2]["content"]
NUM_CALLS = 4
Json = dict[str, Any]


@pytest_asyncio.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[httpx.AsyncClient]:
    upstream.answer = ReadingModel(NUM_CALLS)
    async with proxy(upstream.url) as client:
        yield client


@pytest_asyncio.fixture
async def openai(client: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="sk-test", max_retries=0) as openai:
        yield openai


@pytest_asyncio.fixture
async def anthropic(client: httpx.AsyncClient) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=str(client.base_url), api_key="sk-ant-test", max_retries=0) as anthropic:
        yield anthropic


def assert_frozen_and_smaller(upstream: ScriptedUpstream, field: str, dialect: Dialect) -> None:
    """Each turn's messages begin with those of the turn before, and of the reads but one is whole."""
    sent = [exchange.json[field] for exchange in upstream.exchanges]
    assert len(sent) == NUM_CALLS + 1
    for before, after in itertools.pairwise(sent):
        assert after[: len(before)] == before
    messages = [dialect.parse(json.dumps(message).encode()) for message in sent[-1]]
    results = [text.text for message in messages for text in message.texts if text.is_result]
    assert results[0] == FILE
    assert ["40 lines as in message" in text for text in results[1:]] == [True] * (NUM_CALLS - 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_chat(openai: AsyncOpenAI, upstream: ScriptedUpstream, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "fix it"}]
    while True:
        if stream:
            calls, text = [], ""
            async for event in await openai.chat.completions.create(model="m", messages=messages, stream=True):
                calls += event.choices[0].delta.tool_calls or []
                text += event.choices[0].delta.content or ""
        else:
            message = (await openai.chat.completions.create(model="m", messages=messages)).choices[0].message
            calls, text = message.tool_calls or [], message.content or ""
        if not calls:
            break
        said = [{"id": call.id, "type": "function", "function": dict(call.function)} for call in calls]
        messages.append({"role": "assistant", "content": None, "tool_calls": said})
        messages += [{"role": "tool", "tool_call_id": call.id, "content": FILE} for call in calls]
    assert text == "done"
    assert_frozen_and_smaller(upstream, "messages", OPENAI_CHAT)


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_responses(openai: AsyncOpenAI, upstream: ScriptedUpstream, stream: bool) -> None:
    items: list[Any] = [{"role": "user", "content": "fix it"}]
    while True:
        if stream:
            async with openai.responses.stream(model="m", input=items) as events:
                answer = await events.get_final_response()
        else:
            answer = await openai.responses.create(model="m", input=items)
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            break
        items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": FILE} for call in calls]
    assert answer.output_text == "done"
    assert upstream.last.header("authorization") == b"Bearer sk-test"
    assert_frozen_and_smaller(upstream, "input", OPENAI_RESPONSES)


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_messages(anthropic: AsyncAnthropic, upstream: ScriptedUpstream, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "fix it"}]
    while True:
        if stream:
            async with anthropic.messages.stream(model="m", max_tokens=9, messages=messages) as events:
                answer = await events.get_final_message()
        else:
            answer = await anthropic.messages.create(model="m", max_tokens=9, messages=messages)
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            break
        messages.append(
            {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]}
        )
        messages.append(
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": FILE} for call in calls],
            }
        )
    assert answer.content[0].text == "done"
    headers = dict(upstream.last.headers)
    assert b"sk-ant-test" in headers.get(b"x-api-key", b"") + headers.get(b"authorization", b"")
    assert b"anthropic-version" in headers
    assert_frozen_and_smaller(upstream, "messages", ANTHROPIC_MESSAGES)


def as_messages(chat: list[Json], **more: Any) -> Json:
    """A request on Anthropic's wire, of a conversation in chat form."""
    messages: list[Json] = []
    for message in chat:
        if message["role"] == "tool":
            content: Any = [
                {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
            ]
            messages.append({"role": "user", "content": content})
        elif message["role"] == "assistant":
            call = message["tool_calls"][0]
            block = {"type": "tool_use", "id": call["id"], "name": "Read", "input": {"file_path": "a.py"}}
            messages.append({"role": "assistant", "content": [block]})
        else:
            messages.append(message)
    return {"model": "m", "max_tokens": 9, "messages": messages, **more}


def as_items(chat: list[Json], **more: Any) -> Json:
    items: list[Json] = []
    for message in chat:
        if message["role"] == "tool":
            output = {"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}
            items.append(output)
        elif message["role"] == "assistant":
            call = message["tool_calls"][0]
            items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
        else:
            items.append(message)
    return {"model": "m", "input": items, **more}


async def test_a_breakpoint_moves_and_nothing_else_changes(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    first, second = as_messages(reading_twice()), as_messages(reading_twice())
    second["messages"] += [
        {"role": "assistant", "content": "so"},
        {"role": "user", "content": [{"type": "text", "text": "go on"}]},
    ]
    for body in (first, second):
        body["messages"][-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
        await client.post("/v1/messages", json=body)
    one, two = (exchange.json["messages"] for exchange in upstream.exchanges)
    assert one[4]["content"][0].pop("cache_control") == {"type": "ephemeral"}
    assert "as in message 3" in one[4]["content"][0]["content"]
    assert two[:5] == one
    assert two[6]["content"][0]["cache_control"] == {"type": "ephemeral"}


async def test_a_breakpoint_is_placed_only_where_it_is_asked_for(upstream: ScriptedUpstream) -> None:
    upstream.answer = ReadingModel(0)
    for wanted in (False, True):
        async with proxy(upstream.url, cache_breakpoints=wanted) as client:
            await client.post("/v1/messages", json=as_messages(reading_twice()[:1]))
            assert b"cache_control" not in upstream.last.body
            await client.post("/v1/messages", json=as_messages(reading_twice()))
        blocks = upstream.last.json["messages"][-1]["content"]
        assert ("cache_control" in blocks[-1]) is wanted
        assert upstream.last.body.count(b"cache_control") == wanted


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", as_items(reading_twice(), previous_response_id="resp_1")),
        ("/v1/responses", as_items(reading_twice(), truncation="auto")),
        (
            "/v1/responses",
            as_items(reading_twice(), context_management=[{"type": "compaction", "compact_threshold": 1000}]),
        ),
        (
            "/v1/messages",
            as_messages(reading_twice(), context_management={"edits": [{"type": "clear_tool_uses_20250919"}]}),
        ),
    ],
)
async def test_where_the_upstream_edits_the_history_no_message_refers_to_another(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, path: str, body: Json
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200
    assert b"as in message" not in upstream.last.body
    assert upstream.last.json.keys() == body.keys()


class CountingStore(MemoryStore):
    """Counts how often it is asked."""

    num_look_ups = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.num_look_ups += 1
        return await super().get_many(keys)


async def test_there_what_was_decided_is_replayed_after_one_look_up(upstream: ScriptedUpstream) -> None:
    upstream.answer = ReadingModel(0)
    store, num_results = CountingStore(), 12
    logs = [{"role": "user", "content": "go"}]
    for number in range(num_results):
        function = {"name": "bash", "arguments": '{"command": "make"}'}
        call = {"id": f"c{number}", "type": "function", "function": function}
        logs.append({"role": "assistant", "content": None, "tool_calls": [call]})
        text = "\n".join([f"waiting for server {number}"] * 50)
        logs.append({"role": "tool", "tool_call_id": f"c{number}", "content": text})
    async with proxy(upstream.url, app_options={"store": store}, mode="safe") as client:
        for chat in (logs[:-2], logs, logs):
            before, asked = store.num_look_ups, as_items(chat, truncation="auto")
            assert (await client.post("/v1/responses", json=asked)).status_code == 200
            look_ups = store.num_look_ups - before
        earlier, later, again = (exchange.json["input"] for exchange in upstream.exchanges)
        metrics = (await client.get("/metrics")).text
    assert look_ups == 1
    assert later[: len(earlier)] == earlier
    assert again == later
    assert all(len(item["output"]) < 500 for item in later if item.get("type") == "function_call_output")
    assert 'sluice_requests_total{status="200"} 3.0' in metrics


async def test_there_repeated_lines_within_one_result_still_go(
    client: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    chat = reading_twice()
    chat[2]["content"] = "\n".join(["waiting for the server"] * 50)
    await client.post("/v1/responses", json=as_items(chat, previous_response_id="resp_1"))
    assert len(upstream.last.json["input"][2]["output"]) < 500
    assert upstream.last.json["input"][4]["output"] == chat[4]["content"]


async def test_input_may_be_a_string_or_not_there(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    for body in ({"model": "m", "input": "hi"}, {"model": "m", "prompt": {"id": "p"}}, {"input": None}):
        answer = await client.post("/v1/responses", content=json.dumps(body))
        assert (answer.status_code, upstream.last.json) == (200, body)


async def test_legacy_completions_pass(openai: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        choice = {"index": 0, "text": "yes", "finish_reason": "stop", "logprobs": None}
        await exchange.whole(
            json.dumps(
                {"id": "x", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
            ).encode()
        )

    upstream.answer = answer
    got = await openai.completions.create(model="m", prompt=["def f("])
    assert got.choices[0].text == "yes"


async def test_errors_come_in_the_form_of_their_wire(anthropic: AsyncAnthropic, client: httpx.AsyncClient) -> None:
    with pytest.raises(APIStatusError) as caught:
        await anthropic.messages.create(model="m", max_tokens=1, messages="oops")  # type: ignore[arg-type]  # on purpose
    assert caught.value.status_code == 400
    body = (await client.post("/v1/messages", content=b'{"model": "m"}')).json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert "lacks 'messages'" in body["error"]["message"]
    assert (await client.post("/v1/responses", content=b"[]")).json()["error"]["code"] == "invalid_value"


async def test_a_stream_that_breaks_off_ends_with_an_error_event_of_its_wire(
    anthropic: AsyncAnthropic, openai: AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(b": hello\n\n")
        raise ConnectionResetError

    upstream.answer = answer
    with pytest.raises(APIStatusError, match="hung up"):
        async with anthropic.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        ) as events:
            await events.get_final_message()
    with pytest.raises(APIError, match="hung up"):
        async for _ in await openai.responses.create(model="m", input="x", stream=True):
            pass


async def test_a_request_refused_as_too_long_is_shortened_and_sent_once_more(upstream: ScriptedUpstream) -> None:
    text = "\n".join(f"    row_{number} = {number * 31}" for number in range(2000))
    chat: list[Json] = [{"role": "user", "content": "fix it"}]
    for number in range(8):
        function = {"name": "Read", "arguments": json.dumps({"file_path": f"{number}.py"})}
        call = {"id": f"c{number}", "type": "function", "function": function}
        chat += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": text.replace("row", f"row{number}")},
        ]

    async def answer(exchange: Exchange) -> None:
        if len(exchange.body) > 200_000:
            message = "This model's maximum context length is 30000 tokens."
            error = {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"}
            await exchange.whole(json.dumps({"error": error}).encode(), 400)
        else:
            await ReadingModel(0)(exchange)

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        got = await client.post("/v1/chat/completions", json={"model": "m", "messages": chat})
    assert got.status_code == 200
    assert got.headers["x-sluice-epoch"]
    assert len(upstream.exchanges) == 2
    assert len(upstream.last.body) < len(upstream.exchanges[0].body)


async def test_another_refusal_comes_through_as_it_is(client: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(b'{"error": {"message": "no such tool"}}', 400, (b"x-request-id", b"r1"))

    upstream.answer = answer
    got = await client.post("/v1/messages", json=as_messages(reading_twice()))
    assert (got.status_code, got.content) == (400, b'{"error": {"message": "no such tool"}}')
    assert got.headers["x-request-id"] == "r1"
    assert len(upstream.exchanges) == 1


async def test_tokens_are_counted_on_what_would_be_forwarded_and_nothing_is_frozen(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(b'{"input_tokens": 7}')

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        body = as_messages(reading_twice())
        del body["max_tokens"]
        got = await client.post("/v1/messages/count_tokens", json=body)
        counted = upstream.last
        assert (got.json(), counted.path) == ({"input_tokens": 7}, "/v1/messages/count_tokens")
        assert "as in message 3" in counted.json["messages"][4]["content"][0]["content"]
        marker = counted.json["messages"][4]["content"][0]["content"][8:12]
        assert (await client.get(f"/v1/recall/{marker}")).status_code == 404
        upstream.answer = ReadingModel(0)
        await client.post("/v1/messages", json=body)
        assert upstream.last.json["messages"] == counted.json["messages"]
        assert (await client.get(f"/v1/recall/{marker}")).status_code == 200


async def test_tokens_are_counted_here_where_the_upstream_cannot(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.whole(b"{}", 404)

    upstream.answer = answer
    async with proxy(upstream.url) as client:
        long = await client.post(
            "/v1/messages/count_tokens", json=as_messages(reading_twice(200)), headers={"x-sluice-mode": "off"}
        )
        short = await client.post("/v1/messages/count_tokens", json=as_messages(reading_twice(200)))
        with_system = await client.post(
            "/v1/messages/count_tokens", json=as_messages(reading_twice(200), system="be brief " * 50)
        )
    assert long.json()["input_tokens"] > 1.8 * short.json()["input_tokens"] > 0
    assert with_system.json()["input_tokens"] > short.json()["input_tokens"] + 90


def billed(number: int) -> list[Json]:
    line = f"x-anthropic-billing-header: cc_version=2.1; cch={number:05};"
    return [{"type": "text", "text": line}, {"type": "text", "text": "You are an agent."}]


async def test_a_line_that_changes_with_each_request_stays_out_of_a_local_prefix(upstream: ScriptedUpstream) -> None:
    upstream.answer = ReadingModel(0)
    for is_local in (True, False):
        options = {
            "name": "up",
            "origin": upstream.url,
            "is_local": is_local,
            "preset": "vllm" if is_local else "anthropic",
        }
        async with proxy(upstream.url, upstreams=(options,)) as client:
            for number in (1, 2):
                got = await client.post("/v1/messages", json=as_messages(reading_twice(), system=billed(number)))
                assert got.status_code == 200
                assert upstream.last.json["system"] == (billed(number)[1:] if is_local else billed(number))
                assert "x-sluice-epoch" not in got.headers
