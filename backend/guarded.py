"""Stands before a server that asks for no key, and turns away what a web page sends. Bare ASGI."""

from __future__ import annotations

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from sluice.backend.hosts import may_come_from, may_embed, may_name_host

_MAX_SHOWN_CHARS = 100


class Guarded:
    """The application, guarded.

    Args:
        app: what is guarded.
        address: what it listens on: on loopback, requests have to name a host of loopback.
    """

    def __init__(self, app: ASGIApp, address: str) -> None:
        self._app = app
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer 403."""
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
            return
        error = {"message": problem, "type": "invalid_request_error", "param": None, "code": "forbidden"}
        body = msgspec.json.encode({"error": error})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _problem(self, scope: Scope) -> str | None:
        """Why a request may not be served; None where it may."""
        sent = {name: value.decode("latin-1").strip() for name, value in scope["headers"]}
        host, origin, site = (sent.get(name) for name in (b"host", b"origin", b"sec-fetch-site"))
        if not may_name_host(host, self._address, ()):
            return f"host {str(host)[:_MAX_SHOWN_CHARS]!r} is no name of loopback, where this listens"
        if not may_come_from(origin, host, ()) or not may_embed(site, sent.get(b"sec-fetch-mode"), origin):
            return f"pages of {str(origin or site)[:_MAX_SHOWN_CHARS]!r} may not ask here"
        return None
