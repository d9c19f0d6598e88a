from __future__ import annotations

import json

import pytest

from sluice.proxy.upstreams import is_context_overflow


def openai(message: str, code: object = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}}).encode()


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (openai("Your input exceeds the context window of this model. Please adjust.", "context_length_exceeded"), 0),
        (openai("This model's maximum context length is 8192 tokens, however you requested 10346 tokens"), 8192),
        (openai("input length and `max_tokens` exceed context limit: 197202 + 21333 > 200000, decrease"), 200_000),
        (openai("The decoder prompt (length 5000) is longer than the maximum model length of 4096."), 4096),
        (openai("The input (516368 tokens) is longer than the model's context length (262144 tokens)."), 262_144),
        (openai("This model's maximum prompt length is 131072 but the request contains 537812 tokens."), 131_072),
        (openai("prompt token count of 200001 exceeds the limit of 128,000"), 128_000),
        (openai("Input is too long for requested model."), 0),
        (openai("Please reduce the length of the messages or completion."), 0),
        (b"This endpoint's maximum context length is 65536 tokens.", 65_536),
        (
            b'[{"error": {"message": "The input token count exceeds the maximum number of tokens allowed 1048576."}}]',
            None,
        ),
        (b'[{"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}}]', 8),
        (
            openai("Invalid 'messages[0].content': string too long. Expected a string with maximum length 10485760"),
            None,
        ),
        (openai("Requested tokens (2100) exceed context window of 2048"), 0),
        (openai("too many tokens: total number of tokens in the prompt cannot exceed 4081"), 0),
        (openai("Too many tokens, please wait before trying again."), None),
        (openai("Unknown model 'prompt'"), None),
        (openai("max_tokens is too large: 9999"), None),
        (b"", None),
        (b"\xff\x00", None),
        (b'{"error": {"message": "the maximum context length is 10 tokens \xff"}}', 10),
        (b"[" * 100_000, None),
        (openai(f"maximum context length is {'1' * 5_000} tokens"), 1_111_111_111_111_111),
        (b'"text"', None),
        (b"[1, null]", None),
    ],
)
def test_what_answers_say(body: bytes, limit: int | None) -> None:
    assert is_context_overflow(400, body) == limit


@pytest.mark.parametrize("status", [200, 401, 404, 429, 503])
def test_other_answers_are_not_taken_for_it(status: int) -> None:
    assert is_context_overflow(status, openai("maximum context length is 8192 tokens")) is None


def test_what_an_error_quotes_of_the_request_is_not_taken_for_it() -> None:
    detail = [{"loc": ["body", "messages"], "msg": "bad", "input": "prompt is too long: 5 tokens > 4 maximum"}]
    assert is_context_overflow(422, json.dumps({"detail": detail}).encode()) is None


@pytest.mark.parametrize("num_before", [0, 70_000])
def test_an_error_that_is_long_for_what_it_quotes_is_read_as_a_short_one(num_before: int) -> None:
    quoted = "y" * num_before + "prompt is too long: 5 tokens > 4 maximum" + "x" * 70_000
    detail = [{"loc": ["body", "messages"], "msg": "bad", "input": quoted}]
    assert is_context_overflow(422, json.dumps({"detail": detail}).encode()) is None
    error = {"detail": detail, "error": {"message": "This model's maximum context length is 8192 tokens"}}
    assert is_context_overflow(400, json.dumps(error).encode()) == 8192
