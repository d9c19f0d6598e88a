"""The small routes: models, recall, health, metrics. What they share comes from the application's state."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from sluice.compressor import StateError
from sluice.proxy.backend_stats import read_backends, render_backends
from sluice.proxy.dashboard.store import Searched
from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header, to_upstream
from sluice.proxy.metrics import CONTENT_TYPE
from sluice.proxy.outgoing import target_of
from sluice.proxy.receive import ClientGoneError
from sluice.proxy.relay import Relayed, relay, unless_gone
from sluice.proxy.services import Services
from sluice.proxy.tenant import tenant_of

_READY_TIMEOUT_S = 3.0


class ModelsRoute:
    """`GET /v1/models`: the upstream's answer, passed on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        services: Services = scope["app"].state.services

        async def forward() -> Relayed:
            headers = to_upstream(scope["headers"], identity=False)
            return await relay(await services.upstreams.models(target_of(scope), headers), send)

        try:
            await unless_gone(receive, forward())
        except ClientGoneError:
            return


def originals_of(services: Services) -> Callable[[list[Header], str], Awaitable[str]]:
    """What fetches the original under an id for the caller whose headers these are.

    It raises CompressorError where that caller has none.
    """

    async def fetch(headers: list[Header], recall_id: str) -> str:
        tenant = tenant_of(headers, await services.store.secret())
        return await services.compressor.recall(tenant, recall_id)

    return fetch


def note_searches_in(services: Services) -> Callable[[list[Header], Searched], Awaitable[None]]:
    """What notes a search for the dashboard, as that of the caller whose headers these are."""

    async def note(headers: list[Header], searched: Searched) -> None:
        try:
            tenant = tenant_of(headers, await services.store.secret())
        except StateError:  # then it is nobody's, and shown to the proxy's owner alone
            tenant = b""
        services.watch.searched(msgspec.structs.replace(searched, tenant=tenant))

    return note


async def recall(request: Request) -> Response:
    """`GET /v1/recall/{id}`: the original text under a marker's id, for the key that its conversation ran under."""
    services: Services = request.app.state.services
    recall_id: str = request.path_params["recall_id"]
    text = await originals_of(services)(request.scope["headers"], recall_id)
    # The standard library escapes lone surrogates, which UTF-8 cannot hold.
    return Response(json.dumps({"id": recall_id, "text": text}), media_type="application/json")


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process is alive; and how its backend is, where it runs one, without asking it."""
    services: Services = request.app.state.services
    body = {"status": "ok"}
    if services.backend is not None:
        body["backend"] = services.backend.read().phase.value
    return Response(msgspec.json.encode(body), media_type="application/json")


async def readyz(request: Request) -> Response:
    """`GET /readyz`: whether the state store and each upstream answer, and which does not.

    One upstream that answers is enough: what it serves would be lost with the others. A proxy whose store is lost
    still serves; it is not ready because conversations that move here would lose theirs.
    """
    services: Services = request.app.state.services
    names = services.upstreams.names
    store, *answers = await asyncio.gather(
        _check(services.store.ping()), *(_check(services.upstreams.ping(name)) for name in names)
    )
    is_ready = store == "ok" and "ok" in answers
    upstreams = dict(zip(names, answers, strict=True))
    body = {"status": "ready" if is_ready else "not ready", "store": store, "upstreams": upstreams}
    return Response(msgspec.json.encode(body), 200 if is_ready else 503, media_type="application/json")


async def metrics(request: Request) -> Response:
    """`GET /metrics`: counters in Prometheus' form, ours and then those of self-hosted backends."""
    services: Services = request.app.state.services
    backends = await read_backends(services.upstreams.local_urls)
    theirs = render_backends(backends)
    if services.backend is not None:
        theirs += services.backend.render()
    return Response(services.metrics.render() + theirs.encode(), media_type=CONTENT_TYPE)


async def _check(ping: Coroutine[Any, Any, None]) -> str:
    """Say `ok`, or why not."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            await ping
    except TimeoutError:
        return f"no answer within {_READY_TIMEOUT_S:g} s"
    except (StateError, UpstreamError) as error:
        return str(error)
    return "ok"
