"""An OpenAI server over an engine: completions (chat and plain, whole and streamed), models, health, metrics.

Knows HTTP and the table from errors to statuses; nothing of how tokens are made.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from sluice.backend.base import Constraint, Engine
from sluice.backend.completion import TextOutput, stream_text
from sluice.backend.constraint import Grammars
from sluice.backend.engine_metrics import render_metrics
from sluice.backend.errors import (
    BackendError,
    ContextLengthError,
    EngineClosedError,
    EngineError,
    EngineOverloadedError,
    InvalidRequestError,
    ModelNotFoundError,
)
from sluice.backend.protocol import ChatRequest, CompletionRequest, GenerationRequest, decode
from sluice.backend.render import Renderer
from sluice.backend.tokenizer import Tokenizer
from sluice.backend.tools import check_tools, find_tool_calls, tell_tools, with_object_arguments

_log = logging.getLogger(__name__)

ERRORS: dict[type[BackendError], tuple[int, str, str]] = {
    InvalidRequestError: (400, "invalid_request_error", "invalid_value"),
    ContextLengthError: (400, "invalid_request_error", "context_length_exceeded"),
    ModelNotFoundError: (404, "invalid_request_error", "model_not_found"),
    EngineOverloadedError: (429, "rate_limit_error", "engine_overloaded"),
    EngineClosedError: (503, "server_error", "engine_closed"),
    EngineError: (500, "server_error", "engine_error"),
}
"""Status, type and code of each error that a request can meet."""

DRAFT_HEADER = "x-sluice-draft"
"""Texts that the answer may repeat, each in base64, with commas between: they make it faster, and no other."""


def create_app(engine: Engine, tokenizer: Tokenizer, model: str) -> FastAPI:
    """The server for one engine, which it closes at shutdown; `model` is the name that requests use."""
    grammars = Grammars(tokenizer.file, engine.vocab_size, tokenizer.end_token_ids)

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

    @app.exception_handler(Exception)
    async def on_mistake(_: Request, error: Exception) -> Response:
        return _json(_mistake(error), 500)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"}) if engine.is_running else _json({"status": "stopped"}, 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(render_metrics(engine.stats()), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> Response:
        entry = {"id": model, "object": "model", "created": created_s, "owned_by": "sluice"}
        return _json({"object": "list", "data": [{**entry, "max_model_len": engine.max_model_len}]})

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        body = decode(await request.body(), ChatRequest)
        tools, messages = body.wanted_tools(), body.plain_messages()
        names = check_tools(tools)
        prepare = with_object_arguments if tokenizer.knows_tools else functools.partial(tell_tools, tools=tools)

        def encode() -> list[int]:
            return tokenizer.encode(tokenizer.render_chat(prepare(messages), tools or None))

        prompt = await asyncio.to_thread(encode)
        make_constraint = None
        if wanted := body.schema():
            make_constraint = await asyncio.to_thread(grammars.json_schema, *wanted)
        return await answer(request, body, prompt, body.predictions(), names, make_constraint)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = decode(await request.body(), CompletionRequest)
        body.check()
        if isinstance(body.prompt, str):
            prompt = await asyncio.to_thread(tokenizer.encode, body.prompt, add_special_tokens=True)
        else:
            prompt = body.prompt
        return await answer(request, body, prompt)

    async def answer(
        request: Request,
        body: GenerationRequest,
        prompt: list[int],
        predictions: Sequence[str] = (),
        tool_names: Sequence[str] = (),
        make_constraint: Callable[[], Constraint] | None = None,
    ) -> Response:
        if body.model != model:
            raise ModelNotFoundError(body.model, model)
        params = dataclasses.replace(body.sampling_params(), make_constraint=make_constraint)
        # Here, as the status of a stream is out before the engine looks at the request.
        engine.check(prompt, params)
        drafts = [*predictions, *_named_drafts(request.headers.get(DRAFT_HEADER))]
        outputs = stream_text(engine, tokenizer, prompt, params, body.stops(), drafts)
        if tool_names:
            outputs = find_tool_calls(outputs, tool_names)
        renderer = Renderer(model, isinstance(body, ChatRequest), params.num_logprobs is not None, tokenizer.decode)
        if body.stream:
            events = _events(renderer, outputs, body.include_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        return await _unless_disconnected(request, _whole(renderer, outputs, params.n))

    return app


def render_error(error: BackendError) -> tuple[int, dict[str, Any]]:
    """Status and OpenAI error body; the nearest known base class decides."""
    status, kind, code = next(
        (ERRORS[base] for base in type(error).__mro__ if base in ERRORS), (500, "server_error", "")
    )
    param = getattr(error, "param", None)
    return status, {"error": {"message": str(error), "type": kind, "param": param, "code": code or None}}


def _mistake(error: Exception) -> dict[str, Any]:
    """OpenAI error body for what is no BackendError."""
    message = f"internal error: {type(error).__name__}"
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def _named_drafts(header: str | None) -> list[str]:
    """Raises InvalidRequestError."""
    try:
        parts = [part.strip() for part in (header or "").split(",")]
        return [base64.b64decode(part, validate=True).decode() for part in parts if part]
    except ValueError as error:
        raise InvalidRequestError(f"{DRAFT_HEADER} is not base64 of UTF-8 text: {error}", DRAFT_HEADER) from None


async def _whole(renderer: Renderer, outputs: AsyncGenerator[TextOutput], num_choices: int) -> Response:
    """Collect the whole answer."""
    async with aclosing(outputs):
        pieces = [output async for output in outputs]
    return _json(renderer.body(pieces, num_choices))


async def _events(
    renderer: Renderer, outputs: AsyncGenerator[TextOutput], include_usage: bool
) -> AsyncGenerator[bytes]:
    """The answer as server-sent events; a failure on the way is one error event, as the status is out already.

    Nothing goes out before the engine has brought something: a proxy in front may ask another replica until then.
    """
    usage_field: dict[str, Any] = {"usage": None} if include_usage else {}
    spoken: set[int] = set()
    last = None
    async with aclosing(outputs):
        try:
            async for last in outputs:
                if renderer.is_chat and last.index not in spoken:
                    spoken.add(last.index)
                    yield _event(renderer.first_chunk(last.index) | usage_field)
                yield _event(renderer.chunk(last) | usage_field)
        except BackendError as error:
            yield _event(render_error(error)[1])
            return
        except Exception as error:  # a mistake of ours: a stream that is cut says nothing
            _log.exception("a stream failed")
            yield _event(_mistake(error))
            return
        assert last is not None
        if include_usage:
            yield _event(renderer.usage_chunk(last.usage))
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


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
