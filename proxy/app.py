"""The application: routes, the one error handler, and the life of what they share. Listens nowhere by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sluice.compressor import Compressor, CompressorError, CompressorSettings, StateStore
from sluice.proxy import routes
from sluice.proxy.access import Access, Guard
from sluice.proxy.answers import make_answers
from sluice.proxy.body import KnownBodies
from sluice.proxy.compact import compact
from sluice.proxy.count_tokens import CountTokens
from sluice.proxy.dashboard.factory import make_watch
from sluice.proxy.dashboard.reader import Reader
from sluice.proxy.dashboard.routes import dashboard_routes
from sluice.proxy.endpoint import Endpoint
from sluice.proxy.error_table import level_of
from sluice.proxy.errors import ConfigError, ProxyError
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter import StatsReader, load_prices, make_meter
from sluice.proxy.meter import routes as stats_routes
from sluice.proxy.metrics import Metrics
from sluice.proxy.openapi import openapi
from sluice.proxy.passthrough import Passthrough
from sluice.proxy.record import RecordingMiddleware, record_file
from sluice.proxy.scorer.factory import make_scorer
from sluice.proxy.search import SearchRoutes
from sluice.proxy.search_tool import Asked, SearchTool
from sluice.proxy.services import Services
from sluice.proxy.settings import Settings
from sluice.proxy.state import make_placements, make_store
from sluice.proxy.state.dry import DryStore
from sluice.proxy.tokens import TokenCounter
from sluice.proxy.translation import Translation
from sluice.proxy.upstreams import BackendStatus, Upstreams
from sluice.proxy.wire.render_errors import error_for_path, error_headers
from sluice.proxy.wire.wires import WIRES
from sluice.search import SearchError

MAX_PINS = 64
"""Pins that one conversation may have."""
_MAX_LOGGED_CHARS = 200
"""Of a path that a client chose."""
_STATE_MARGIN_S = 2.0
"""By how much the compressor waits longer for a store than the store itself for an answer, which says more."""


def create_app(
    settings: Settings,
    *,
    store: StateStore | None = None,
    compressor: Compressor | None = None,
    backend: BackendStatus | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        settings: they have to name an upstream.
        store: where state lives; None takes what the settings ask for. Closed with the application.
        compressor: None makes one on the store.
        backend: what is known of the backend that runs as the upstream `upstream`; None: it is nobody's child.

    Raises:
        ConfigError: the settings name no upstream, or a folder for recordings that cannot be written.
    """
    if not settings.all_upstreams:
        raise ConfigError("neither upstream nor upstreams is set: there is nowhere to forward requests to")

    access = Access.of(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        kept = store or make_store(settings)
        limits = CompressorSettings(
            state_timeout_s=settings.redis_timeout_s + _STATE_MARGIN_S,
            decide_timeout_s=settings.compress_timeout_s,
            max_conversation_bytes=4 * settings.conversation_max_bytes // 6,
            max_trail_bytes=settings.conversation_max_bytes // 6,
            max_reattached_chars=settings.max_reattached_chars,
            # Who cannot see what was dropped cannot pin it, and then no request looks for pins.
            max_pins=MAX_PINS if settings.store_content else 0,
        )
        metrics = Metrics(is_shared=settings.workers > 1)
        prices = load_prices(settings.prices_file)
        meter = make_meter(settings, prices, [metrics.meter])
        scorer = make_scorer(settings, kept, metrics.scorer)
        compressing = compressor or Compressor(
            kept, limits, profile=settings.profile, scorer=scorer, on_unreadable=metrics.unreadable.inc
        )
        stateless = replace(limits, max_conversation_bytes=0, max_trail_bytes=0)
        services = app.state.services = Services(
            settings=settings,
            store=kept,
            compressor=compressing,
            apart_compressor=compressor or Compressor(kept, stateless, profile=settings.profile, scorer=scorer),
            dry_compressor=Compressor(DryStore(kept), stateless, profile=settings.profile, scorer=scorer),
            scorer=scorer,
            bodies=KnownBodies(settings.conversation_max_bytes // 6),
            upstreams=Upstreams(
                settings.all_upstreams,
                limits=settings.http_limits,
                policy=settings.retry_policy,
                translator=Translation(),
                cache_ttl_s=settings.cache_ttl_s,
                metrics=metrics.upstreams,
                placements=make_placements(settings),
                backend=backend,
            ),
            backend=backend,
            counter=TokenCounter(),
            metrics=metrics,
            access=access,
            prices=prices,
            meter=meter,
            stats=StatsReader(meter),
            watch=make_watch(settings),
            answers=make_answers(settings),
            search_tool=_search_tool(settings, search, kept, compressing, limits.state_timeout_s),
        )
        app.state.reader = Reader(services.stats)
        loading = asyncio.create_task(asyncio.to_thread(services.compressor.load, settings.mode))
        try:
            async with search.running(routes.originals_of(services), routes.note_searches_in(services)):
                yield
        finally:
            await loading
            await app.state.reader.aclose()
            await services.aclose()

    search = SearchRoutes(settings)
    app = _Application(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.direct = {wire.path: Endpoint(wire) for wire in WIRES.values()}
    app.router.routes += [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in app.direct.items()),
        Route("/v1/messages/count_tokens", CountTokens(), methods=["POST"]),
        Route("/v1/compact", compact, methods=["POST"]),
        Route("/v1/models", routes.ModelsRoute(), methods=["GET"]),
        Route("/v1/recall/{recall_id}", routes.recall, methods=["GET"]),
        Route("/v1/stats", stats_routes.stats, methods=["GET"]),
        Route("/v1/stats/conversations", stats_routes.conversations, methods=["GET"]),
        Route("/v1/stats/conversations/{conversation_id}", stats_routes.conversation, methods=["GET"]),
        Route("/healthz", routes.healthz, methods=["GET"]),
        Route("/readyz", routes.readyz, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/metrics", routes.metrics, methods=["GET"]),
        *search.routes,
        *dashboard_routes(),
        # What no route above serves, their other methods included, is the upstream's.
        Route("/v1/{rest:path}", Passthrough()),
    ]
    for wrap in _wrappers(settings, access):
        app.add_middleware(wrap)
        app.direct = {path: wrap(endpoint) for path, endpoint in app.direct.items()}
    for cls in (ProxyError, CompressorError, SearchError, HTTPException, Exception):
        app.add_exception_handler(cls, _render_error)
    return app


class _Application(FastAPI):
    """FastAPI, but for the routes of the wires: what it puts around a request costs more there than serving it."""

    direct: Mapping[str, ASGIApp]
    """By path, what serves its POST requests, with all around it that the other routes have, too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        is_direct = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self.direct.get(scope["path"]) if is_direct else None
        if endpoint is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await endpoint(scope, receive, send)


def _wrappers(settings: Settings, access: Access) -> Iterator[Callable[[ASGIApp], ASGIApp]]:
    """What stands around all routes, the innermost first."""
    if settings.record is not None:
        yield partial(RecordingMiddleware, file=record_file(settings.record), max_body_bytes=settings.max_body_bytes)
    yield partial(Guard, access=access)
    if settings.allowed_origins:
        yield partial(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )


def _search_tool(
    settings: Settings, search: SearchRoutes, store: StateStore, compressor: Compressor, state_timeout_s: float
) -> SearchTool | None:
    mode = settings.search_tool
    if mode == "off":
        return None

    async def ask(asked: Asked) -> str:
        return await search.ask(asked.query, asked.budget_tokens, mode)

    return SearchTool(store, compressor, ask, holdout=settings.holdout, state_timeout_s=state_timeout_s)


async def _render_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        error = HTTPException(error.status_code, f"{error.detail}: {request.method} {request.url.path}", error.headers)
    status, body = error_for_path(error, request.url.path)
    place = {"method": request.method, "path": request.url.path[:_MAX_LOGGED_CHARS]}
    logger.log(level_of(error), fields("refused", status=status, **place, error=where(error)))
    headers = dict(getattr(error, "headers", None) or {})
    headers |= {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(body, status, headers=headers, media_type="application/json")
