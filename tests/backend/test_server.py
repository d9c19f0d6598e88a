from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import openai
import pytest

from tests.backend.asking import HI, TOOLS, ask, figures


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


async def test_models_and_health(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    (model,) = (await http.get("/v1/models")).json()["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 512)


async def test_output_ends_at_the_window(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, max_tokens=5000, temperature=0)
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.total_tokens <= 512


@pytest.mark.engine
@pytest.mark.xdist_group("smollm2")
async def test_smollm2_knows_its_capitals(smollm2_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=smollm2_url, api_key="none") as client:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        answer = await ask(client, model="SmolLM2-135M-Instruct", messages=question, temperature=0, max_tokens=30)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 37
