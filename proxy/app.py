"""The application: routes, the one error handler, and the life of what they share. Listens nowhere by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from sluice.compressor import Compressor, CompressorError, CompressorSettings, StateStore
from sluice.proxy import routes
from sluice.proxy.access import Access, Guard
from sluice.proxy.answers import make_answers
from sluice.proxy.compact import compact
from sluice.proxy.count_tokens import CountTokens
from sluice.proxy.dashboard.factory import make_watch
from sluice.proxy.dashboard.reader import Reader
from sluice.proxy.dashboard.routes import dashboard_routes
from sluice.proxy.errors import ConfigError, ProxyError
from sluice.proxy.exchange import Endpoint
from sluice.proxy.meter import StatsReader, load_prices, make_meter
from sluice.proxy.meter import routes as stats_routes
from sluice.proxy.metrics import Metrics
from sluice.proxy.openapi import openapi
from sluice.proxy.passthrough import Passthrough
from sluice.proxy.record import RecordingMiddleware, record_file
from sluice.proxy.search import SearchRoutes
from sluice.proxy.services import Services
from sluice.proxy.settings import Settings
from sluice.proxy.state import make_placements, make_store
from sluice.proxy.state.dry import DryStore
from sluice.proxy.tokens import TokenCounter
from sluice.proxy.translation import Translation
from sluice.proxy.upstreams import Upstreams
from sluice.proxy.wire.render_errors import error_for_path, error_headers
from sluice.proxy.wire.wires import WIRES
from sluice.search import SearchError

MAX_PINS = 64
"""Pins that one conversation may have."""
_STATE_MARGIN_S = 2.0
"""By how much the compressor waits longer for a store than the store itself for an answer, which says more."""


def create_app(settings: Settings, *, store: StateStore | None = None, compressor: Compressor | None = None) -> FastAPI:
    """Make the application.

    Args:
        settings: they have to name an upstream.
        store: where state lives; None takes what the settings ask for. Closed with the application.
        compressor: None makes one on the store.

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
            # What is left of the time is the store's.
            decide_timeout_s=0.7 * settings.compress_timeout_s,
            max_reattached_chars=settings.max_reattached_chars,
            # Who cannot see what was dropped cannot pin it, and then no request looks for pins.
            max_pins=MAX_PINS if settings.store_content else 0,
        )
        metrics = Metrics(is_shared=settings.workers > 1)
        prices = load_prices(settings.prices_file)
        meter = make_meter(settings, prices, [metrics.meter])
        services = app.state.services = Services(
            settings=settings,
            store=kept,
            compressor=compressor or Compressor(kept, limits, profile=settings.profile),
            dry_compressor=Compressor(DryStore(kept), replace(limits, max_conversations=0), profile=settings.profile),
            upstreams=Upstreams(
                settings.all_upstreams,
                limits=settings.http_limits,
                policy=settings.retry_policy,
                translator=Translation(),
                cache_ttl_s=settings.cache_ttl_s,
                metrics=metrics.upstreams,
                placements=make_placements(settings),
            ),
            counter=TokenCounter(),
            metrics=metrics,
            access=access,
            prices=prices,
            meter=meter,
            stats=StatsReader(meter),
            watch=make_watch(settings),
            answers=make_answers(settings),
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
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.router.routes += [
        *(Route(wire.path, Endpoint(wire), methods=["POST"]) for wire in WIRES.values()),
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
    if settings.record is not None:
        file = record_file(settings.record)
        app.add_middleware(RecordingMiddleware, file=file, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Guard, access=access)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    for cls in (ProxyError, CompressorError, SearchError, HTTPException, Exception):
        app.add_exception_handler(cls, _render_error)
    return app


async def _render_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        error = HTTPException(error.status_code, f"{error.detail}: {request.method} {request.url.path}", error.headers)
    status, body = error_for_path(error, request.url.path)
    headers = dict(getattr(error, "headers", None) or {})
    headers |= {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(body, status, headers=headers, media_type="application/json")
