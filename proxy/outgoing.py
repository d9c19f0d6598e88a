"""The request that goes to the upstream: what was prepared, with the client's path and such headers as pass."""

from __future__ import annotations

from starlette.types import Scope

from sluice.proxy.headers import to_upstream
from sluice.proxy.meter.reader import readable
from sluice.proxy.prepared import Prepared
from sluice.proxy.wire import Outgoing
from sluice.proxy.wire.base import Wire

DRAFT_HEADER = b"x-sluice-draft"
"""What the bundled backend may propose to itself; it goes to self-hosted upstreams alone."""


def outgoing_of(scope: Scope, prepared: Prepared, wire: Wire) -> Outgoing:
    """The request that goes to the upstream."""
    parsed, target = prepared.parsed, prepared.target
    stream = parsed is not None and parsed.stream
    kept = (DRAFT_HEADER,) if target is not None and target.is_local else ()
    # What the search tool reads comes plain.
    is_plain = stream or prepared.searching is not None
    headers = readable(to_upstream(scope["headers"], identity=is_plain, kept=kept))
    if not prepared.is_packed:
        headers = [(name, value) for name, value in headers if name != b"content-encoding"]
    model = parsed.model if parsed is not None else ""
    # What could not be unpacked can be sent as it is, to an upstream that speaks its format, and no other way.
    form = None if prepared.is_packed else wire.name
    return Outgoing("POST", target_of(scope), headers, prepared.body, form, model, stream)


def target_of(scope: Scope) -> str:
    """Path and query of a request, quoted as the client quoted them."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
