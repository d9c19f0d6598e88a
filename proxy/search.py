"""`POST /v1/search` and `/mcp`: code search over the roots that the settings name, and over no others.

The work is `SearchService`'s, in threads of its own; here are the body's form, the life of the service, and whose
originals the MCP tool `recall` may fetch. Knows no index. Without roots nothing is imported and both routes say so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sluice.compressor import CompressorError
from sluice.proxy.dashboard.store import Searched
from sluice.proxy.errors import ConfigError, InvalidFieldError, InvalidJsonError
from sluice.proxy.headers import Header
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.settings import Settings
from sluice.search import (
    DeepSettings,
    MissingExtraError,
    SearchError,
    SearchSettings,
    UnknownRootError,
)
from sluice.search.text import as_json, as_text

if TYPE_CHECKING:
    from sluice.search.service import SearchService
    from sluice.search.types import SearchAnswer, SearchMode

Recall = Callable[[list[Header], str], Awaitable[str]]
"""(the caller's headers, id) → the original text; raises CompressorError where there is none for that caller."""
Note = Callable[[list[Header], Searched], Awaitable[None]]
"""(the caller's headers, a search that was answered)."""

_MAX_BODY_BYTES = 1_000_000
_NOT_CONFIGURED = "code search is not set up here: no repository is configured (setting search_roots)"


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/search`. What its values may be is the service's to say."""

    query: str
    repo: str | None = None
    budget_tokens: int = 1000
    max_results: int | None = None
    mode: Literal["fast", "deep"] = "fast"


_decoder = msgspec.json.Decoder(_Asked)


class SearchRoutes:
    """The routes, and what answers them while `running`.

    Args:
        settings: the parts named `search_…`, and `upstream` for the model behind `deep`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._service: SearchService | None = None
        self._mcp: ASGIApp | None = None
        self._mcp_missing: MissingExtraError | None = None

    @property
    def routes(self) -> list[BaseRoute]:
        """To be added to an application that keeps `running` open while it serves."""
        return [
            Route("/v1/search", self._search, methods=["POST"]),
            Route("/mcp", _Endpoint(self._serve_mcp), methods=["GET", "POST", "DELETE"]),
        ]

    @asynccontextmanager
    async def running(self, recall: Recall, note: Note) -> AsyncIterator[None]:
        """Open the service, and close it at the end.

        A tree is read when it is first asked about. Where models get the search as a tool it is read ahead of that, in
        the background: in the middle of an answer nobody should wait for it.

        Args:
            recall: what the MCP tool `recall` fetches originals with.
            note: told of every search that was answered.

        Raises:
            ConfigError: a root is no directory.
        """
        if not self._settings.search_roots:
            yield
            return
        async with AsyncExitStack() as stack:
            self._service = await asyncio.to_thread(_make_service, self._settings, note)
            stack.push_async_callback(self._service.aclose)
            if self._settings.search_tool != "off":
                self._service.warm_up()
            try:
                self._mcp = await stack.enter_async_context(_mcp_app(self._service, recall))
            except MissingExtraError as error:  # the other route needs no package for it
                self._mcp_missing = error
            try:
                yield
            finally:
                self._service = self._mcp = None

    async def ask(self, query: str, budget_tokens: int, mode: Literal["fast", "deep"]) -> str:
        """Answer a question about the only root, as text for a model.

        Raises:
            SearchError: it cannot be answered.
        """
        return as_text(await self._running_service().search(query, None, budget_tokens, mode=mode))

    async def _search(self, request: Request) -> Response:
        """`POST /v1/search`: `{results: [{path, start, end, score, reason, text}], tokens, took_ms}`."""
        try:
            body = await read_body(request.receive, request.headers.get("content-length"), _MAX_BODY_BYTES)
        except ClientGoneError:
            return Response(status_code=499)  # reaches nobody
        asked = _asked(body)
        token = _caller.set(request.scope["headers"])
        try:
            answer = await self._running_service().search(
                asked.query, asked.repo, asked.budget_tokens, asked.max_results, asked.mode
            )
        finally:
            _caller.reset(token)
        return Response(as_json(answer), media_type="application/json")

    async def _serve_mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running_service()
        if self._mcp is None:
            assert self._mcp_missing is not None
            raise self._mcp_missing
        token = _caller.set(scope["headers"])
        try:
            await self._mcp(scope, receive, send)
        finally:
            _caller.reset(token)

    def _running_service(self) -> SearchService:
        if self._service is None:
            raise UnknownRootError(_NOT_CONFIGURED)
        return self._service


_caller: ContextVar[list[Header]] = ContextVar("headers of the request that is being served")
"""A tool is called without its request; originals and what was searched for are shown to their caller only."""


class _Endpoint:
    """An ASGI application as a route's endpoint: Starlette takes plain functions for handlers of requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _asked(body: bytes) -> _Asked:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at `$.")[2]
        raise InvalidFieldError(f"bad search request: {error}", param=place.rstrip("`") or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJsonError(f"the body is no JSON: {error}") from None


def _make_service(settings: Settings, note: Note) -> SearchService:
    from sluice.search.service import SearchService

    async def note_answer(root: Path, query: str, mode: SearchMode, answer: SearchAnswer) -> None:
        found = Searched(time.time(), root.name, mode, len(answer.results), answer.tokens, answer.took_ms, query)
        await note(_caller.get([]), found)

    key = settings.search_deep_key
    deep = DeepSettings(
        base_url=(settings.search_deep_url or settings.upstream or "") if settings.search_deep_model else "",
        model=settings.search_deep_model or "",
        api_key=key.get_secret_value() if key is not None else "",
    )

    try:
        cache = settings.search_cache_dir.expanduser()
        wanted = SearchSettings(settings.search_roots, cache, dense_model=settings.search_dense_model, deep=deep)
        return SearchService(wanted, on_answer=note_answer)
    except (SearchError, ValueError) as error:
        raise ConfigError(f"code search cannot start: {error}") from error


@asynccontextmanager
async def _mcp_app(service: SearchService, recall: Recall) -> AsyncIterator[ASGIApp]:
    """The MCP server over streamable HTTP, without sessions: any worker can answer any request."""
    from sluice.search.mcp_server import build_server, open_to_all_hosts

    async def recall_for_caller(recall_id: str) -> str:
        try:
            return await recall(_caller.get(), recall_id)
        except CompressorError as error:
            raise LookupError(str(error)) from error

    server = build_server(service, recall_for_caller)
    app = server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=_MAX_BODY_BYTES,
        transport_security=open_to_all_hosts(),  # Host and Origin were checked before any route (access)
    )
    async with app.router.lifespan_context(app):
        yield app
