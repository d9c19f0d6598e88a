"""The dashboard's routes: pages and files, which say nothing of anybody, and the API behind them, which asks who looks.

What the guard checks of every request (host, origin) holds here, too; the key is checked by each call of the API,
because a page that asks for one has to be served first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sluice import __version__
from sluice.compressor import StateError
from sluice.proxy.backend_stats import read_backends
from sluice.proxy.dashboard import content, pages
from sluice.proxy.dashboard.kept import Summary
from sluice.proxy.dashboard.reader import SORTS, Reader, rewrites_of
from sluice.proxy.dashboard.viewer import Viewer, viewer_of
from sluice.proxy.errors import InvalidFieldError, UnknownConversationError
from sluice.proxy.meter.routes import described, fields_of, number_of
from sluice.proxy.meter.store import MAX_CONVERSATIONS, MAX_DAYS
from sluice.proxy.services import Services

_MAX_FILES = 30
_MAX_QUERY_CHARS = 200

Handler = Callable[[Request], Awaitable[Response]]


def dashboard_routes() -> list[BaseRoute]:
    """Everything under `/dashboard`."""
    api: list[tuple[str, str, Handler]] = [
        ("GET", "/session", session),
        ("GET", "/overview", overview),
        ("GET", "/conversations", conversations),
        ("GET", "/conversations/{conversation_id}", conversation),
        ("GET", "/conversations/{conversation_id}/request", content.kept_request),
        ("POST", "/conversations/{conversation_id}/pins", content.pin),
        ("GET", "/backends", backends),
        ("GET", "/searches", searches),
    ]
    paths = ("", "/conversations", "/conversations/{conversation_id}", "/backends", "/searches")
    return [
        *(Route(f"/dashboard/api{path}", handler, methods=[method]) for method, path, handler in api),
        Route("/dashboard/static/{name:path}", pages.asset, methods=["GET"]),
        *(Route(f"/dashboard{path}", pages.page, methods=["GET"]) for path in paths),
    ]


async def session(request: Request) -> Response:
    """What this proxy is, and what whoever asks may see of it."""
    viewer, services = await viewer_of(request), _services(request)
    settings = services.settings
    return pages.json_answer(
        {
            "version": __version__,
            "role": viewer.role,
            "name": viewer.name,
            "stores_content": settings.store_content,
            "may_read_content": settings.store_content and viewer.role != "guest",
            "mode": settings.mode,
            "holdout": settings.holdout,
            "state": "memory" if settings.redis_url is None else "redis",
            "workers": settings.workers,
            "upstreams": services.upstreams.names,
            "has_search": bool(settings.search_roots),
            "has_backends": bool(services.upstreams.local_urls),
            "cache_ttl_s": settings.profile.ttl_s,
        }
    )


async def overview(request: Request) -> Response:
    """Figures of the last `days` days: what `/v1/stats` tells, the saving by group, rewrites, the largest files."""
    viewer, services = await viewer_of(request), _services(request)
    reader = _reader(request)
    stats = await services.stats.stats(number_of(request, "days", 30, 1, MAX_DAYS), viewer.key_id)
    return pages.json_answer(
        {
            **msgspec.to_builtins(stats),
            "measured": await reader.measured(viewer.key_id),
            "rewritten": await reader.rewritten(viewer.key_id),
            "files": _files(await _visible(services, viewer)),
        }
    )


async def conversations(request: Request) -> Response:
    """A page of the recent conversations.

    Raises:
        InvalidFieldError: there is no such order, or a number is out of range.
    """
    viewer, services = await viewer_of(request), _services(request)
    start = number_of(request, "start", 0, 0, MAX_CONVERSATIONS)
    limit = number_of(request, "limit", 50, 1, 200)
    sort = request.query_params.get("sort", "recent")
    if sort not in SORTS:
        raise InvalidFieldError(f"sort must be one of {', '.join(SORTS)}, not {sort[:20]!r}", param="sort")
    titles = {summary.conversation: summary.title for summary in await _visible(services, viewer)}
    reader = _reader(request)
    query = request.query_params.get("q", "")[:_MAX_QUERY_CHARS]
    found, total = await reader.page(start, limit, sort, query, titles, viewer.key_id)
    sizes = await reader.sizes(found)
    return pages.json_answer(
        {
            "total": total,
            "conversations": [
                {**described(one), "title": titles.get(one.id), "tokens_in": came, "tokens_out": went}
                for one, (came, went) in zip(found, sizes, strict=True)
            ],
        }
    )


async def conversation(request: Request) -> Response:
    """One conversation, turn by turn.

    Raises:
        UnknownConversationError: none is kept under this id.
    """
    viewer, services = await viewer_of(request), _services(request)
    name: str = request.path_params["conversation_id"]
    found = await services.stats.conversation(name, viewer.key_id)
    rows = await services.stats.turns(name)
    if not rows or found is None:
        raise UnknownConversationError(name)
    title = next((one.title for one in await _visible(services, viewer) if one.conversation == name), None)
    return pages.json_answer(
        {
            **described(found),
            "title": title,
            "turns": [fields_of(row) for row in rows],
            "rewritten": rewrites_of(name, rows),
        }
    )


async def backends(request: Request) -> Response:
    """What the self-hosted backends say of themselves."""
    await viewer_of(request)
    services = _services(request)
    urls = services.upstreams.local_urls
    found = await read_backends(urls)
    return pages.json_answer(
        {
            "backends": [
                {"name": name, "figures": found[name].as_json() if name in found else None} for name in sorted(urls)
            ]
        }
    )


async def searches(request: Request) -> Response:
    """Recent code searches; what was asked for only with a key, where content is kept."""
    viewer, services = await viewer_of(request), _services(request)
    await services.watch.flush()
    found = await services.watch.store.searches()
    return pages.json_answer(
        {
            "searches": [
                {**fields_of(one, "tenant", "query"), "query": one.query if viewer.may_read(one.tenant) else None}
                for one in found
                if viewer.key_id is None or viewer.may_read(one.tenant)
            ]
        }
    )


async def _visible(services: Services, viewer: Viewer) -> list[Summary]:
    """Summaries of what is kept and may be seen; none where the store does not answer: figures are shown without."""
    if viewer.role == "guest" or not services.settings.store_content:
        return []
    await services.watch.flush()
    try:
        found = await services.watch.store.summaries()
    except StateError:
        return []
    return [summary for summary in found if viewer.may_read(summary.tenant)]


def _files(summaries: list[Summary]) -> list[dict[str, object]]:
    sums: dict[str, list[int]] = {}
    for summary in summaries:
        for share in summary.files:
            total = sums.setdefault(share.path, [0, 0, 0])
            for index, value in enumerate((share.tokens_in, share.tokens_out, 1)):
                total[index] += value
    largest = sorted(sums, key=lambda path: (-sums[path][0], path))[:_MAX_FILES]
    names = ("tokens_in", "tokens_out", "num_conversations")
    return [{"name": path, **dict(zip(names, sums[path], strict=True))} for path in largest]


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _reader(request: Request) -> Reader:
    reader: Reader = request.app.state.reader
    return reader
