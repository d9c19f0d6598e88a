"""`GET /v1/stats` and the recent conversations behind it, as JSON. Counts and ids, never content.

Where proxy keys are asked for, each is told of what ran under it; the proxy's owner, by the dashboard key, of all.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sluice.proxy.access.guard import STATE_KEY
from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.backend_stats import read_backends
from sluice.proxy.errors import InvalidFieldError, UnknownConversationError
from sluice.proxy.meter.stats_reader import StatsReader
from sluice.proxy.meter.store import MAX_CONVERSATIONS, MAX_DAYS, Conversation, TurnRow


async def stats(request: Request) -> Response:
    """`GET /v1/stats?days=30`: what was spent and saved, and how self-hosted backends are doing.

    Raises:
        InvalidFieldError: `days` is no whole number in range.
    """
    found = await _reader(request).stats(number_of(request, "days", 30, 1, MAX_DAYS), _key(request))
    backends = await read_backends(request.app.state.services.upstreams.local_urls)
    return _json(
        {**msgspec.to_builtins(found), "backends": {name: figures.as_json() for name, figures in backends.items()}}
    )


async def conversations(request: Request) -> Response:
    """`GET /v1/stats/conversations?start=0&limit=100`: the newest first.

    Raises:
        InvalidFieldError: a number is out of range.
    """
    start = number_of(request, "start", 0, 0, MAX_CONVERSATIONS)
    limit = number_of(request, "limit", 100, 1, MAX_CONVERSATIONS)
    found = await _reader(request).conversations(start, limit, _key(request))
    return _json({"conversations": [described(one) for one in found]})


async def conversation(request: Request) -> Response:
    """`GET /v1/stats/conversations/{id}`: the turns of one.

    Raises:
        UnknownConversationError: none is kept under this id, or it is another key's.
    """
    name: str = request.path_params["conversation_id"]
    rows: list[TurnRow] = [*await _reader(request).turns(name, _key(request))]
    if not rows:
        raise UnknownConversationError(name)
    return _json({"id": name, "turns": [fields_of(row) for row in rows]})


def _reader(request: Request) -> StatsReader:
    reader: StatsReader = request.app.state.services.stats
    return reader


def _key(request: Request) -> str | None:
    """Whose figures may be told; None: everybody's."""
    key: ProxyKey | None = request.scope["state"].get(STATE_KEY)
    return key.id if key is not None else None


def number_of(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number of a request's query.

    Raises:
        InvalidFieldError: it is none, or out of range.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or not low <= int(text) <= high:
        raise InvalidFieldError(f"{name} must be a whole number from {low} to {high}, not {text[:20]!r}", param=name)
    return int(text)


def fields_of(record: msgspec.Struct, *but: str) -> dict[str, object]:
    """A record's fields by name: in the store it is an array."""
    return {name: getattr(record, name) for name in record.__struct_fields__ if name not in but}


def described(one: Conversation) -> dict[str, object]:
    """A conversation as lists tell of it."""
    return {"id": one.id, **fields_of(one.about), **fields_of(one, "id", "about")}


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers={"cache-control": "no-store"})
