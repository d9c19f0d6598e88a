"""Stand-ins that speak as the real servers do: their paths, their lists of models, their errors, their health."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.proxy.servers import Exchange, Json, completion

MESSAGE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
RESPONSE: Json = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
TEXT: Json = {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": "hello"}]}
OPENAI_LIST: Json = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}
ANSWERS = {"chat": completion(), "messages": MESSAGE, "responses": RESPONSE, "completions": TEXT}


@dataclass(frozen=True)
class StandIn:
    """How one server answers."""

    paths: Mapping[str, str]
    """Path of each format that it serves."""
    list_path: str
    overflow: tuple[int, Json]
    """How it says that a request is too long for its model."""
    limit: int
    """The limit that this names; 0 where it names none."""
    listing: Json = field(default_factory=lambda: OPENAI_LIST)
    health: tuple[str, Json | str] | None = None
    token_header: str = "authorization"

    async def __call__(self, exchange: Exchange) -> None:
        if self.health is not None and exchange.path == self.health[0]:
            await exchange.whole(_encode(self.health[1]))
        elif exchange.path == self.list_path:
            await exchange.whole(_encode(self.listing))
        elif (wire := {path: wire for wire, path in self.paths.items()}.get(exchange.path)) is not None:
            if exchange.json.get("too_long"):
                await exchange.whole(_encode(self.overflow[1]), self.overflow[0])
            else:
                await exchange.whole(_encode(ANSWERS[wire]))
        else:
            await exchange.whole(b'{"detail": "Not Found"}', 404)


def _encode(body: Json | str) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def openai_error(message: str, kind: str = "invalid_request_error", code: object = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


V1 = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def some_of_v1(*wires: str) -> dict[str, str]:
    return {wire: V1[wire] for wire in wires}


STAND_INS = {
    "openai": StandIn(
        some_of_v1("chat", "completions", "responses"),
        "/v1/models",
        (
            400,
            openai_error(
                "This model's maximum context length is 128000 tokens. However, your messages resulted in 130012 "
                "tokens. Please reduce the length of the messages.",
                code="context_length_exceeded",
            ),
        ),
        128_000,
    ),
    "anthropic": StandIn(
        some_of_v1("messages"),
        "/v1/models",
        (
            400,
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "prompt is too long: 213462 tokens > 200000 maximum",
                },
                "request_id": "req_1",
            },
        ),
        200_000,
        listing={
            "data": [{"type": "model", "id": "m", "display_name": "M", "created_at": "2026-01-01T00:00:00Z"}],
            "has_more": False,
            "first_id": "m",
            "last_id": "m",
        },
        token_header="x-api-key",
    ),
    "gemini": StandIn(
        {"chat": "/v1beta/openai/chat/completions"},
        "/v1beta/openai/models",
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum number of tokens allowed "
                    "(1048575).",
                    "status": "INVALID_ARGUMENT",
                }
            },
        ),
        1_048_575,
        listing={"object": "list", "data": [{"id": "models/m", "object": "model", "owned_by": "google"}]},
    ),
    "deepseek": StandIn(
        {
            "chat": "/chat/completions",
            "completions": "/beta/completions",
            "messages": "/anthropic/v1/messages",
        },
        "/models",
        (
            400,
            openai_error(
                "This model's maximum context length is 131072 tokens. However, you requested 140000 tokens "
                "(136000 in the messages, 4000 in the completion). Please reduce the length of the messages or "
                "completion."
            ),
        ),
        131_072,
    ),
    "vllm": StandIn(
        V1,
        "/v1/models",
        (
            400,
            {
                "error": {
                    "message": "This model's maximum context length is 4096 tokens. However, you requested 100 output "
                    "tokens and your prompt contains at least 3997 input tokens, for a total of at least 4097 tokens. "
                    "Please reduce the length of the input prompt or the number of requested output tokens.",
                    "type": "BadRequestError",
                    "param": "input_tokens",
                    "code": 400,
                }
            },
        ),
        4_096,
        health=("/health", ""),
    ),
    "sglang": StandIn(
        V1,
        "/v1/models",
        (
            400,
            {
                "object": "error",
                "message": "Requested token count exceeds the model's maximum context length of 32768 tokens. You "
                "requested a total of 40000 tokens: 39000 tokens from the input messages and 1000 tokens for the "
                "completion.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
        ),
        32_768,
        health=("/health", ""),
    ),
    "tensorrt-llm": StandIn(
        some_of_v1("chat", "completions", "responses"),
        "/v1/models",
        (
            400,
            {
                "object": "error",
                "message": "The sum of prompt length (72417.0), query length (0) should not exceed "
                "max_num_tokens (69632)",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
        ),
        69_632,
        health=("/health", ""),
    ),
    "llama.cpp": StandIn(
        V1,
        "/v1/models",
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "request (9412 tokens) exceeds the available context size (8192 tokens), "
                    "try increasing it",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 9412,
                    "n_ctx": 8192,
                }
            },
        ),
        8_192,
        health=("/health", {"status": "ok"}),
    ),
    "ollama": StandIn(
        V1,
        "/v1/models",
        (400, openai_error("prompt too long; exceeded max context length by 4 tokens", "api_error")),
        0,
        health=("/", "Ollama is running"),
    ),
    "lmdeploy": StandIn(
        some_of_v1("chat", "completions"),
        "/v1/models",
        (400, {"object": "error", "message": "The input length exceeds session_len of the engine", "code": 400}),
        0,
        health=("/health", ""),
    ),
    "tgi": StandIn(
        some_of_v1("chat", "completions"),
        "/v1/models",
        (
            422,
            {
                "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 "
                "`inputs` tokens and 100 `max_new_tokens`",
                "error_type": "validation",
            },
        ),
        4_096,
        health=("/health", ""),
    ),
    "embedded": StandIn(
        some_of_v1("chat", "completions"),
        "/v1/models",
        (400, openai_error("the prompt of 9000 tokens exceeds the context of 8192", code="context_length_exceeded")),
        0,
        health=("/healthz", {"status": "ok"}),
    ),
}
