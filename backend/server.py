"""An OpenAI server over an engine: chat completions (plain and streamed), models, health.

Knows the wire format and the table from errors to statuses; nothing of how tokens are made.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from sluice.backend.base import Engine
from sluice.backend.completion import TextOutput, Usage, stream_text
from sluice.backend.errors import (
    BackendError,
    ContextLengthError,
    EngineClosedError,
    EngineError,
    EngineOverloadedError,
    InvalidRequestError,
    ModelNotFoundError,
)
from sluice.backend.protocol import ChatRequest, decode
from sluice.backend.tokenizer import Tokenizer

ERRORS: dict[type[BackendError], tuple[int, str, str]] = {
    InvalidRequestError: (400, "invalid_request_error", "invalid_value"),
    ContextLengthError: (400, "invalid_request_error", "context_length_exceeded"),
    ModelNotFoundError: (404, "invalid_request_error", "model_not_found"),
    EngineOverloadedError: (429, "rate_limit_error", "engine_overloaded"),
    EngineClosedError: (503, "server_error", "engine_closed"),
    EngineError: (500, "server_error", "engine_error"),
}
"""Status, type and code of each error that a request can meet."""

_JSON = "application/json"
_Outputs = AsyncGenerator[TextOutput]


def create_app(engine: Engine, tokenizer: Tokenizer, model: str) -> FastAPI:
    """The server for one engine, which it closes at shutdown; `model` is the name that requests use."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.aclose()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    created_s = int(time.time())

    @app.exception_handler(BackendError)
    async def on_error(_: Request, error: BackendError) -> Response:
        status, body = render_error(error)
        return _json(body, status)

    @app.exception_handler(HTTPException)
    async def on_http_error(_: Request, error: HTTPException) -> Response:
        body = {"message": str(error.detail), "type": "invalid_request_error", "param": None, "code": None}
        return _json({"error": body}, error.status_code)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/v1/models")
    async def models() -> Response:
        entry = {"id": model, "object": "model", "created": created_s, "owned_by": "sluice"}
        return _json({"object": "list", "data": [{**entry, "max_model_len": engine.max_model_len}]})

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        chat = decode(await request.body(), ChatRequest)
        if chat.model != model:
            raise ModelNotFoundError(chat.model, model)
        params, stops = chat.sampling_params(), chat.stops()
        tools = None if chat.tool_choice == "none" else chat.tools
        prompt = tokenizer.encode(tokenizer.render_chat(chat.plain_messages(), tools))
        if len(prompt) >= engine.max_model_len:
            raise ContextLengthError(len(prompt), engine.max_model_len)
        outputs = stream_text(engine, tokenizer, prompt, params, stops)
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        if chat.stream:
            include_usage = bool(chat.stream_options and chat.stream_options.include_usage)
            return StreamingResponse(_events(head, outputs, include_usage), media_type="text/event-stream")
        return await _unless_disconnected(request, _completion(head, outputs))

    return app


def render_error(error: BackendError) -> tuple[int, dict[str, Any]]:
    """Status and OpenAI error body; the nearest known base class decides."""
    status, kind, code = next(
        (ERRORS[base] for base in type(error).__mro__ if base in ERRORS), (500, "server_error", "")
    )
    param = getattr(error, "param", None)
    return status, {"error": {"message": str(error), "type": kind, "param": param, "code": code or None}}


async def _completion(head: dict[str, Any], outputs: _Outputs) -> Response:
    """Collect the whole answer."""
    text, last = "", None
    async with aclosing(outputs):
        async for last in outputs:
            text += last.text
    assert last is not None
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
    return _json({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(last.usage)})


async def _events(head: dict[str, Any], outputs: _Outputs, include_usage: bool) -> AsyncGenerator[bytes]:
    """The answer as server-sent events; a failure on the way is one error event, as the status is out already."""
    head = {**head, "object": "chat.completion.chunk"}
    usage_field: dict[str, Any] = {"usage": None} if include_usage else {}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**head, "choices": [choice], **usage_field})

    last = None
    async with aclosing(outputs):
        yield chunk({"role": "assistant", "content": ""})
        try:
            async for last in outputs:
                if last.text:
                    yield chunk({"content": last.text})
        except BackendError as error:
            yield _event(render_error(error)[1])
            return
        assert last is not None
        yield chunk({}, last.finish_reason)
        if include_usage:
            yield _event({**head, "choices": [], "usage": _usage(last.usage)})
        yield b"data: [DONE]\n\n"


async def _unless_disconnected(request: Request, work: Awaitable[Response]) -> Response:
    """Do the work, but cancel it when the client goes."""

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else Response(status_code=499)
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_output_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached_tokens},
    }


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=_JSON)
