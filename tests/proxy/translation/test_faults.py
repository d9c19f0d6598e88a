"""What goes wrong upstream, in the client's words; and what is no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice.proxy.errors import UpstreamError
from sluice.proxy.translation import Translation
from sluice.proxy.wire import WireName
from tests.proxy.translation.wires import FakeAnswer, chunk, events_of, sse


@pytest.mark.parametrize("source", [WireName.MESSAGES, WireName.RESPONSES])
async def test_a_stream_that_ends_early_is_no_whole_answer(source: WireName) -> None:
    with pytest.raises(UpstreamError, match="before the answer was whole"):
        await events_of(source, WireName.CHAT, sse(chunk({"content": "x"})))


async def test_an_error_in_a_stream_is_one_of_the_clients() -> None:
    error = {"error": {"message": "boom", "type": "server_error", "code": None}}
    stream = sse(chunk({"content": "x"}), error)
    events = await events_of(WireName.MESSAGES, WireName.CHAT, stream)
    assert events[-1] == {"type": "error", "error": {"type": "api_error", "message": "boom"}}
    events = await events_of(WireName.RESPONSES, WireName.CHAT, stream)
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["message"] == "boom"
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    events = await events_of(WireName.CHAT, WireName.MESSAGES, sse(overloaded))
    assert events[-1]["error"]["message"] == "busy"


async def body_of(source: WireName, target: WireName, answer: FakeAnswer) -> Any:
    translated = Translation().answer(source, target, answer, stream=True, request=b"{}")
    assert translated.status == answer.status
    assert (b"content-type", b"application/json") in translated.headers
    assert b"content-length" not in dict(translated.headers)
    body = b""
    while data := await translated.read():
        body += data
    return json.loads(body)


async def test_an_error_in_place_of_an_answer_says_what_agents_look_for() -> None:
    too_long = {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": None}}
    answer = FakeAnswer([json.dumps(too_long).encode()], 400)
    said = await body_of(WireName.MESSAGES, WireName.CHAT, answer)
    assert said["error"]["type"] == "invalid_request_error"
    assert said["error"]["message"].startswith("prompt is too long: This model's")
    anthropics = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}
    said = await body_of(WireName.CHAT, WireName.MESSAGES, FakeAnswer([json.dumps(anthropics).encode()], 400))
    assert said["error"]["code"] == "context_length_exceeded"
    said = await body_of(WireName.MESSAGES, WireName.CHAT, FakeAnswer([b"<html>Bad gateway"], 502))
    assert said["error"] == {"type": "api_error", "message": "<html>Bad gateway"}
    said = await body_of(WireName.RESPONSES, WireName.CHAT, FakeAnswer([b'[{"error": {"message": "slow down"}}]'], 429))
    assert said["error"]["message"] == "slow down"
    assert said["error"]["type"] == "rate_limit_error"


TOO_LONG = [
    {"error": {"code": 400, "message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}},
    {"error": {"code": 400, "message": "the request exceeds the available context size (8 tokens)", "n_ctx": 8}},
    {"error": {"message": "no", "type": "exceed_context_size_error", "code": 400}},
    {"code": "invalid argument", "error": "This model's maximum prompt length is 8 but the request contains 9 tokens."},
    {"object": "error", "message": "The prompt is longer than the maximum model length of 8.", "code": 400},
    {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8", "error_type": "validation"},
    {"error": "prompt too long; exceeded max context length by 1 tokens"},
    {"error": {"message": "Requested tokens (9) exceed context window of 8", "code": "other"}},
    {"message": "too many tokens: total number of tokens in the prompt cannot exceed 8"},
]


@pytest.mark.parametrize("error", TOO_LONG)
async def test_that_a_prompt_is_too_long_is_said_in_the_clients_words_whoever_found_so(error: dict[str, Any]) -> None:
    body = json.dumps(error).encode()
    said = await body_of(WireName.MESSAGES, WireName.CHAT, FakeAnswer([body], 400))
    assert said["error"]["message"].startswith("prompt is too long: ")
    said = await body_of(WireName.RESPONSES, WireName.CHAT, FakeAnswer([body], 400))
    assert said["error"]["code"] == "context_length_exceeded"
    if "error" in error:
        events = await events_of(WireName.MESSAGES, WireName.CHAT, sse(error))
        assert events[-1]["error"]["message"].startswith("prompt is too long: ")
        assert events[-1]["error"]["type"] == "invalid_request_error"


async def test_that_anthropic_finds_a_prompt_too_long_is_said_in_openais_words() -> None:
    message = "input length and `max_tokens` exceed context limit: 9 + 1 > 8"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    said = await body_of(WireName.CHAT, WireName.MESSAGES, FakeAnswer([json.dumps(error).encode()], 400))
    assert said["error"]["code"] == "context_length_exceeded"
    events = await events_of(WireName.RESPONSES, WireName.MESSAGES, sse(error))
    assert events[-1]["response"]["error"]["code"] == "context_length_exceeded"


async def test_what_only_asks_to_wait_is_not_taken_for_a_prompt_that_is_too_long() -> None:
    waiting = {"error": {"message": "Too many tokens, please wait before trying again.", "type": "rate_limit_error"}}
    said = await body_of(WireName.MESSAGES, WireName.CHAT, FakeAnswer([json.dumps(waiting).encode()], 429))
    assert said["error"] == {"type": "rate_limit_error", "message": waiting["error"]["message"]}
    events = await events_of(WireName.MESSAGES, WireName.CHAT, sse(waiting))
    assert events[-1]["error"] == {"type": "rate_limit_error", "message": waiting["error"]["message"]}


@pytest.mark.parametrize(
    ("source", "target", "body"),
    [
        (WireName.MESSAGES, WireName.CHAT, b'{"object": "list", "data": []}'),
        (WireName.MESSAGES, WireName.CHAT, b'{"choices": []}'),
        (WireName.CHAT, WireName.MESSAGES, b'{"status": "ok"}'),
    ],
)
async def test_what_is_no_answer_is_not_taken_for_an_empty_one(source: WireName, target: WireName, body: bytes) -> None:
    translated = Translation().answer(source, target, FakeAnswer([body]), stream=False, request=b"{}")
    with pytest.raises(UpstreamError, match="the upstream's answer is no"):
        await translated.read()
