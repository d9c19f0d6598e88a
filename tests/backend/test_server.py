from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from sluice.backend import errors
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.loading import load_engine
from sluice.backend.server import ERRORS, create_app, render_error
from sluice.backend.tokenizer import Tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    }
]
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def url(tiny_folder: Path) -> AsyncIterator[str]:
    """The tiny model behind a real socket."""
    tokenizer = Tokenizer(tiny_folder)
    # What serves it may hold on to it after the test: caches of the default size would add up until nothing can fork.
    engine = load_engine(tiny_folder, EngineConfig(kv_memory_bytes=32 * 2**20), tokenizer.end_token_ids)
    config = uvicorn.Config(
        create_app(engine, tokenizer, "tiny"), port=0, log_level="warning", ws="none", http="httptools"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def ask(client: openai.AsyncOpenAI, **arguments: Any) -> Any:
    return await client.chat.completions.create(**{"model": "tiny", "messages": HI, "max_tokens": 12, **arguments})


async def test_plain_and_streamed_answers_are_equal(client: openai.AsyncOpenAI) -> None:
    plain = await ask(client, temperature=0)
    text, finish, usage = "", None, None
    async for chunk in await ask(client, temperature=0, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason
    assert plain.choices[0].message.content == text
    assert plain.choices[0].finish_reason == finish
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (plain.usage.prompt_tokens, 12)
    assert usage.total_tokens == plain.usage.total_tokens
    assert plain.usage.prompt_tokens_details.cached_tokens == 0
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens // 16 * 16 > 0


async def test_without_include_usage_no_chunk_speaks_of_it(http: httpx.AsyncClient) -> None:
    body = {"model": "tiny", "messages": HI, "max_tokens": 3, "ignore_eos": True, "stream": True}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert all("usage" not in chunk for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_a_seed_repeats_the_answer(client: openai.AsyncOpenAI) -> None:
    answers = [(await ask(client, seed=seed)).choices[0].message.content for seed in (5, 5, 6)]
    assert answers[0] == answers[1] != answers[2]


async def test_a_stop_string_is_cut_off(client: openai.AsyncOpenAI) -> None:
    whole = (await ask(client, temperature=0, max_tokens=40)).choices[0].message.content
    stop = whole[5:8]
    cut = await ask(client, temperature=0, max_tokens=40, stop=[stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


async def test_content_parts_and_tool_messages_are_read(client: openai.AsyncOpenAI) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "result"},
    ]
    answer = await ask(client, messages=messages)
    call = '<tool_call>[{"name": "f", "arguments": {}}]</tool_call>'
    text = f"user\nab\nassistant\n{call}\ntool\nresult\nassistant\n"
    num_specials = 7
    assert answer.usage.prompt_tokens == len(text) + num_specials


async def test_several_choices(client: openai.AsyncOpenAI) -> None:
    plain = await ask(client, n=3, seed=4)
    texts = {0: "", 1: "", 2: ""}
    async for chunk in await ask(client, n=3, seed=4, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert {choice.index: choice.message.content for choice in plain.choices} == texts
    assert len(set(texts.values())) == 3
    assert plain.usage.completion_tokens == 36


async def test_logprobs(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, temperature=0, logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    for item in content:
        assert item.logprob <= 0
        assert item.top_logprobs[0].token == item.token
        assert len(item.top_logprobs) == 2
    streamed: list[Any] = []
    async for chunk in await ask(client, temperature=0, logprobs=True, top_logprobs=2, stream=True):
        streamed += chunk.choices[0].logprobs.content
    assert [item.token for item in streamed] == [item.token for item in content]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_holds_even_a_random_model(client: openai.AsyncOpenAI, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["ab", "cd"]}, "ok": {"type": "boolean"}},
        "required": ["kind", "ok"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    texts = []
    for seed in range(3):
        answer = await ask(client, response_format=form, max_tokens=200, seed=seed, stream=stream, top_p=0.9)
        text = ""
        if stream:
            async for chunk in answer:
                text += chunk.choices[0].delta.content or ""
        else:
            text = answer.choices[0].message.content
        texts.append(json.loads(text))
    assert all(value["kind"] in ("ab", "cd") and isinstance(value["ok"], bool) for value in texts)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_that_must_be_called_is_called(client: openai.AsyncOpenAI, choice: Any, stream: bool) -> None:
    answer = await ask(client, tools=TOOLS, tool_choice=choice, max_tokens=200, stream=stream, seed=1)
    calls, texts, reason = [], [], None
    if stream:
        async for chunk in answer:
            for item in chunk.choices:
                calls += item.delta.tool_calls or []
                texts.append(item.delta.content)
                reason = item.finish_reason
    else:
        calls, reason = answer.choices[0].message.tool_calls, answer.choices[0].finish_reason
        texts.append(answer.choices[0].message.content)
    assert not any(texts)
    assert reason == "tool_calls"
    (call,) = calls
    assert call.id
    assert call.function.name == "add"
    arguments = json.loads(call.function.arguments)
    assert arguments["a"] in (1, 2)
    assert arguments["b"] in (3, 4)


async def test_a_bias_forces_a_token(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, logit_bias={"70": 100}, max_tokens=4)
    assert answer.choices[0].message.content in {char * 4 for char in map(chr, range(33, 127))}


@pytest.mark.parametrize("prompt", ["hello", [70, 71, 72]])
async def test_plain_completions(client: openai.AsyncOpenAI, prompt: Any) -> None:
    arguments = {"model": "tiny", "prompt": prompt, "max_tokens": 9, "temperature": 0}
    whole = await client.completions.create(**arguments, logprobs=1)
    assert whole.usage.prompt_tokens == len(prompt)
    assert len(whole.choices[0].logprobs.tokens) == 9
    text = ""
    async for chunk in await client.completions.create(**arguments, stream=True):
        text += chunk.choices[0].text
    assert text == whole.choices[0].text


@pytest.mark.parametrize("changes", [{"prompt": ["a", "b"]}, {"prompt": "a", "echo": True}, {"prompt": []}])
async def test_plain_completions_refuse_what_they_do_not_serve(
    http: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    response = await http.post("/v1/completions", json={"model": "tiny", **changes})
    assert response.status_code == 400


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    lines = (await http.get("/metrics")).text.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


async def test_figures_have_our_names_and_vllms(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    await ask(client, temperature=0)
    await ask(client, temperature=0, n=2)
    now = await figures(http)
    pairs = {
        "sluice_engine_prompt_tokens_total": "vllm:prompt_tokens_total",
        "sluice_engine_cached_tokens_total": "vllm:prompt_tokens_cached_total",
        "sluice_engine_output_tokens_total": "vllm:generation_tokens_total",
        "sluice_engine_ttft_seconds_count": "vllm:time_to_first_token_seconds_count",
        "sluice_engine_itl_seconds_sum": "vllm:inter_token_latency_seconds_sum",
    }
    assert all(now[ours] == now[theirs] > 0 for ours, theirs in pairs.items())
    assert now["vllm:kv_cache_usage_perc"] == 0
    assert now["sluice_engine_ttft_seconds_count"] == 2
    assert now["sluice_engine_itl_seconds_count"] == 3 * 11
    assert now['sluice_engine_itl_seconds_bucket{le="+Inf"}'] == 3 * 11


async def until(http: httpx.AsyncClient, holds: Callable[[dict[str, float]], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds(await figures(http)):  # noqa: ASYNC110 - the engine tells its figures only when asked
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("way", ["header", "prediction"])
async def test_a_named_draft_changes_the_speed_and_not_the_answer(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, way: str
) -> None:
    plain = await ask(client, temperature=0, max_tokens=60)
    before = await figures(http)
    text = plain.choices[0].message.content
    if way == "header":
        drafted = await ask(
            client,
            temperature=0,
            max_tokens=60,
            extra_headers={"x-sluice-draft": base64.b64encode(text.encode()).decode()},
        )
    else:
        drafted = await ask(client, temperature=0, max_tokens=60, prediction={"type": "content", "content": text})
    after = await figures(http)
    assert drafted.choices[0].message.content == text
    assert after["sluice_engine_steps_total"] - before["sluice_engine_steps_total"] < 60
    assert after["sluice_engine_accepted_tokens_total"] > before["sluice_engine_accepted_tokens_total"]


async def test_a_whole_file_fits_in_the_draft_header(http: httpx.AsyncClient) -> None:
    drafts = [base64.b64encode(text.encode()).decode() for text in ("é" * 20_000, "", "x" * 30_000)]
    body = {"model": "tiny", "messages": HI, "max_tokens": 3}
    response = await http.post("/v1/chat/completions", json=body, headers={"x-sluice-draft": ", ".join(drafts)})
    assert response.status_code == 200


async def test_a_draft_that_is_no_text_is_refused(http: httpx.AsyncClient) -> None:
    body = {"model": "tiny", "messages": HI}
    response = await http.post("/v1/chat/completions", json=body, headers={"x-sluice-draft": "?!"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-sluice-draft"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_frees_its_blocks(http: httpx.AsyncClient, url: str, stream: bool) -> None:
    body = {"model": "tiny", "messages": HI, "stream": stream, "ignore_eos": True, "n": 8}
    async with httpx.AsyncClient(base_url=url, trust_env=False) as leaver:
        task = asyncio.create_task(leaver.post("/v1/chat/completions", json=body))
        await until(http, lambda now: now["sluice_engine_running"] == 8)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(http, lambda now: now["sluice_engine_blocks_in_use"] == 0)
    assert (await figures(http))["sluice_engine_output_tokens_total"] < 8 * 200


async def test_models_and_health(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    (model,) = (await http.get("/v1/models")).json()["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 512)


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"model": 3}, "model", "Expected `str`, got `int`"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "None"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "7"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "image_url"),
        ({"temperature": -1}, "temperature", "-1"),
        ({"temperature": "warm"}, "temperature", "Expected `float"),
        ({"top_p": 0}, "top_p", "0"),
        ({"max_tokens": 0}, "max_tokens", "0"),
        ({"n": 0}, "n", "0"),
        ({"n": 65}, "n", "65"),
        ({"top_k": -2}, "top_k", "-2"),
        ({"min_p": 1.5}, "min_p", "1.5"),
        ({"presence_penalty": 3}, "presence_penalty", "3"),
        ({"repetition_penalty": 0}, "repetition_penalty", "0"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "'x'"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "101"),
        ({"logit_bias": {"5000": 1}}, "logit_bias", "5000"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "21"),
        ({"tool_choice": "always"}, "tool_choice", "always"),
        ({"prediction": {"type": "content", "content": 5}}, "prediction.content", "5"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "yaml"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "None"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}},
            "response_format.json_schema.schema",
            "nonsense",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools", "web_search"),
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "nothing"}}}, "tool_choice", "nothing"),
    ],
)
async def test_bad_fields_are_named(http: httpx.AsyncClient, changes: dict[str, Any], param: str, says: str) -> None:
    response = await http.post("/v1/chat/completions", json={"model": "tiny", "messages": HI, **changes})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": "tiny"}'])
async def test_bodies_that_are_no_request_are_refused(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"messages": [{"role": "user", "content": "x" * 600}]}, 400, "context_length_exceeded"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": ["what"]}}}},
            400,
            "invalid_value",
        ),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}}, 400, "invalid_value"),
        ({"model": "another"}, 404, "model_not_found"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_after_each_error_the_engine_serves_on(
    http: httpx.AsyncClient, changes: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    body = {"model": "tiny", "messages": HI, "max_tokens": 3, "stream": stream}
    refused = await http.post("/v1/chat/completions", json=body | changes)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    assert (await figures(http))["sluice_engine_blocks_in_use"] == 0


async def test_more_requests_than_may_wait_are_told_to_come_back(tiny_folder: Path) -> None:
    tokenizer = Tokenizer(tiny_folder)
    config = EngineConfig(max_num_sequences=1, max_num_waiting=1)
    engine = load_engine(tiny_folder, config, tokenizer.end_token_ids)
    transport = httpx.ASGITransport(create_app(engine, tokenizer, "tiny"))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        body = {"model": "tiny", "messages": HI, "max_tokens": 20, "ignore_eos": True}
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(5)))
        statuses = [answer.status_code for answer in answers]
        assert statuses.count(200) == 2
        assert statuses.count(429) == 3
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    await engine.aclose()


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"'gpt-9'.*'tiny'") as caught:
        await ask(client, model="gpt-9")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_beyond_the_window_is_refused_with_numbers(client: openai.AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match=r"6\d\d tokens.*512") as caught:
        await ask(client, messages=[{"role": "user", "content": "x" * 600}], stream=stream)
    assert caught.value.code == "context_length_exceeded"


async def test_output_ends_at_the_window(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, max_tokens=5000, temperature=0)
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.total_tokens <= 512


async def test_unknown_routes_answer_in_json(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "Not Found"


async def test_an_engine_that_has_stopped_is_not_healthy(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedEngine, "is_running", False)
    assert (await http.get("/healthz")).status_code == 503


async def test_a_mistake_of_the_servers_own_is_told_in_json(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(EmbeddedEngine, "check", fail)
    response = await http.post("/v1/chat/completions", json={"model": "tiny", "messages": HI})
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "internal error: RuntimeError"


def test_every_request_error_has_a_status() -> None:
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, (errors.RequestError, errors.EngineError)):
            assert any(base in ERRORS for base in kind.__mro__) or kind is errors.RequestError, name
    assert render_error(errors.ContextLengthError(9, 4))[0] == 400


@pytest.mark.engine
async def test_smollm2_knows_its_capitals(smollm2_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=smollm2_url, api_key="none") as client:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = await ask(client, model="SmolLM2-135M-Instruct", messages=question, temperature=0, max_tokens=30)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 37
