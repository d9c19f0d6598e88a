from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from sluice.backend import errors
from sluice.backend.base import SamplingParams
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.loading import load_engine
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.server import ERRORS, create_app, render_error
from sluice.backend.tokenizer import Tokenizer
from sluice.backend.tools import ToolCallFinder
from tests.backend.asking import HI, TOOLS, WIDE, ask, figures, until


@pytest.mark.parametrize("changes", [{"prompt": ["a", "b"]}, {"prompt": "a", "echo": True}, {"prompt": []}])
async def test_plain_completions_refuse_what_they_do_not_serve(
    http: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    response = await http.post("/v1/completions", json={"model": "tiny", **changes})
    assert response.status_code == 400


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
    assert (await figures(http))["sluice_engine_output_tokens_total"] < 8 * 400


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"model": 3}, "model", "Expected `str`, got `int`"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "None"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "7"),
        ({"messages": [{"role": "assistant", "tool_calls": 7}]}, "messages[0].tool_calls", "7"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "image_url"),
        ({"temperature": -1}, "temperature", "-1"),
        ({"temperature": "warm"}, "temperature", "Expected `float"),
        ({"top_p": 0}, "top_p", "0"),
        ({"max_tokens": 0}, "max_tokens", "0"),
        ({"n": 0}, "n", "0"),
        ({"n": 65}, "n", "65"),
        ({"top_k": -2}, "top_k", "-2"),
        ({"seed": 2**64}, "seed", "18446744073709551616"),
        ({"seed": -(2**63) - 1}, "seed", "-9223372036854775809"),
        ({"min_p": 1.5}, "min_p", "1.5"),
        ({"presence_penalty": 3}, "presence_penalty", "3"),
        ({"repetition_penalty": 0}, "repetition_penalty", "0"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "'x'"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "101"),
        ({"logit_bias": {"5" * 5000: 1}}, "logit_bias", "555"),
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
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
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
    "changes",
    [
        {"top_k": 2**31},
        {"top_k": 10**40},
        {"seed": 2**64 - 1, "n": 2},
        {"seed": -(2**63), "n": 2},
        {"max_tokens": 10**40, "stop_token_ids": [10**40]},
    ],
)
async def test_numbers_of_any_size_fail_neither_their_request_nor_another(
    http: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    body = {"model": "tiny", "messages": HI, "max_tokens": 20, "ignore_eos": True}
    bodies = [body, body | changes, body]
    answers = await asyncio.gather(*(http.post("/v1/chat/completions", json=each) for each in bodies))
    assert [answer.status_code for answer in answers] == [200] * 3


DEEP = "[" * 3000
HALVES = r'{"c": "cut \ud83d"}'


@pytest.mark.parametrize("arguments", [HALVES, DEEP, DEEP + "]" * 3000])
async def test_what_a_history_holds_is_answered_however_it_was_cut(http: httpx.AsyncClient, arguments: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "user", "content": "cut \ud83d"}]
    body = json.dumps({"model": "tiny", "messages": messages, "max_tokens": 3}).encode()
    response = await http.post("/v1/chat/completions", content=body)
    # The tiny model's window is too short for some; that, too, is told of what was read.
    assert response.status_code == 200 or response.json()["error"]["code"] == "context_length_exceeded"
    assert (len(arguments) > 512) == (response.status_code == 400)


async def test_a_body_that_is_nested_too_deeply_is_refused(http: httpx.AsyncClient) -> None:
    body = b'{"model": "tiny", "messages": [{"role": "user", "content": %s}]}' % (b"[" * 50_000 + b"]" * 50_000)
    response = await http.post("/v1/chat/completions", content=body)
    assert (response.status_code, response.json()["error"]["message"]) == (400, "the body is nested too deeply")


@pytest.mark.parametrize("changes", [{"temperature": 1e-45}, {"top_p": 1e-60}, {"temperature": 1e-7, "top_p": 1e-7}])
async def test_what_is_all_but_nothing_leaves_the_likeliest_token(
    client: openai.AsyncOpenAI, changes: dict[str, float]
) -> None:
    greedy = await ask(client, temperature=0)
    assert (await ask(client, **changes)).choices[0].message.content == greedy.choices[0].message.content


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


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_whose_form_cannot_be_held_any_further_is_an_error(
    http: httpx.AsyncClient, stream: bool
) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}, "w": WIDE},
        "required": ["a", "w"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = {"model": "tiny", "messages": HI, "max_tokens": 50, "n": 2}
    other = asyncio.create_task(http.post("/v1/chat/completions", json=body | {"ignore_eos": True}))
    response = await http.post("/v1/chat/completions", json=body | {"response_format": form, "stream": stream})
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line]
    assert response.status_code == (200 if stream else 400)
    assert "cannot be held" in events[-1]["error"]["message"]
    assert (await other).json()["usage"]["completion_tokens"] == 100, "the others go on"
    await until(http, lambda now: now["sluice_engine_blocks_in_use"] == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_closed_engine_refuses_has_a_status(tiny_folder: Path, stream: bool) -> None:
    tokenizer = Tokenizer(tiny_folder)
    engine = load_engine(tiny_folder, EngineConfig(), tokenizer.end_token_ids)
    await engine.aclose()
    transport = httpx.ASGITransport(create_app(engine, tokenizer, "tiny"))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        response = await client.post("/v1/chat/completions", json={"model": "tiny", "messages": HI, "stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_closed")


async def test_a_stream_that_is_too_much_is_told_to_come_back_by_its_status(tiny_folder: Path) -> None:
    tokenizer = Tokenizer(tiny_folder)
    config = EngineConfig(max_num_sequences=1, max_num_waiting=0)
    engine = load_engine(tiny_folder, config, tokenizer.end_token_ids)
    transport = httpx.ASGITransport(create_app(engine, tokenizer, "tiny"))
    body = {"model": "tiny", "messages": HI, "stream": True}
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        async with aclosing(engine.generate([5], SamplingParams(ignore_end=True))) as outputs:
            await anext(outputs)
            response = await client.post("/v1/chat/completions", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (429, "engine_overloaded")
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    await engine.aclose()


async def test_more_requests_than_may_wait_are_told_to_come_back(tiny_folder: Path) -> None:
    tokenizer = Tokenizer(tiny_folder)
    config = EngineConfig(max_num_sequences=1, max_num_waiting=1)
    engine = load_engine(tiny_folder, config, tokenizer.end_token_ids)
    transport = httpx.ASGITransport(create_app(engine, tokenizer, "tiny"))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        body = {"model": "tiny", "messages": HI, "max_tokens": 400, "ignore_eos": True}
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


async def test_a_mistake_on_the_way_is_told_in_the_stream(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ToolCallFinder, "finish", fail)
    body = {"model": "tiny", "messages": HI, "tools": TOOLS, "max_tokens": 3, "ignore_eos": True, "stream": True}
    response = await http.post("/v1/chat/completions", json=body)
    *_, last = [line for line in response.text.splitlines() if line]
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "internal error: RuntimeError"


@pytest.mark.parametrize("error", [RuntimeError, torch.AcceleratorError])
async def test_a_stream_whose_prompt_fails_begins_with_the_error(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("out of luck")

    monkeypatch.setattr(ModelRunner, "run", fail)
    response = await http.post("/v1/chat/completions", json={"model": "tiny", "messages": HI, "stream": True})
    assert response.text.startswith('data: {"error"'), "by which a proxy in front knows that it may ask another replica"


async def test_each_choice_says_once_and_first_who_speaks(http: httpx.AsyncClient) -> None:
    body = {"model": "tiny", "messages": HI, "max_tokens": 5, "n": 3, "stream": True, "seed": 4}
    response = await http.post("/v1/chat/completions", json=body)
    chunks = [
        json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line.startswith("data: {")
    ]
    for index in range(3):
        roles = [
            choice["delta"].get("role") for chunk in chunks for choice in chunk["choices"] if choice["index"] == index
        ]
        assert roles == ["assistant"] + [None] * (len(roles) - 1)
        assert len(roles) > 1


def test_every_request_error_has_a_status() -> None:
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, (errors.RequestError, errors.EngineError)):
            assert any(base in ERRORS for base in kind.__mro__) or kind is errors.RequestError, name
    assert render_error(errors.ContextLengthError(9, 4))[0] == 400
