from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from sluice.backend import errors
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import load_engine
from sluice.backend.server import ERRORS, create_app, render_error
from sluice.backend.tokenizer import Tokenizer

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def url(tiny_folder: Path) -> AsyncIterator[str]:
    """The tiny model behind a real socket."""
    tokenizer = Tokenizer(tiny_folder)
    engine = load_engine(tiny_folder, EngineConfig(), tokenizer.end_token_ids)
    config = uvicorn.Config(create_app(engine, tokenizer, "tiny"), port=0, log_level="warning", ws="none")
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
    body = {"model": "tiny", "messages": HI, "max_tokens": 3, "stream": True}
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
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    answer = await ask(client, messages=messages, tools=tools)
    plain = "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\nresult<|im_end|>\n"
    rest = "<|im_start|>assistant\n"
    num_specials = 7
    text = (plain + rest).replace("<|im_start|>", "").replace("<|im_end|>", "")
    assert answer.usage.prompt_tokens == len(text) + num_specials


async def test_models_and_health(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    (model,) = (await http.get("/v1/models")).json()["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 256)


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
        ({"n": 2}, "n", "2"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "json_object"),
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


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"'gpt-9'.*'tiny'") as caught:
        await ask(client, model="gpt-9")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_beyond_the_window_is_refused_with_numbers(client: openai.AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match=r"3\d\d tokens.*256") as caught:
        await ask(client, messages=[{"role": "user", "content": "x" * 300}], stream=stream)
    assert caught.value.code == "context_length_exceeded"


async def test_output_ends_at_the_window(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, max_tokens=5000, temperature=0)
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.total_tokens <= 256


async def test_unknown_routes_answer_in_json(http: httpx.AsyncClient) -> None:
    response = await http.get("/v1/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "Not Found"


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
