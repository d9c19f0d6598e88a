"""Stands before the application and turns away what may not be served. Bare ASGI: it adds no task and no buffer."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sluice.proxy.access.access import Access
from sluice.proxy.access.keys import take_key
from sluice.proxy.error_table import rendering_of
from sluice.proxy.errors import AccessError, ForbiddenHostError, ForbiddenOriginError
from sluice.proxy.headers import find
from sluice.proxy.log import fields, logger
from sluice.proxy.wire.render_errors import error_for_path, error_headers

OPEN_PATHS = frozenset(("/healthz", "/readyz"))
"""What is served without a key, and however busy the proxy is: probes, which tell nothing of anybody. A probe that is
turned away for want of room would have a proxy killed that serves."""
OPEN_FOLDER = "/dashboard"
"""Served without a key, too: a page that asks for one has to be there first. Its API looks at the key itself."""
FIGURES = re.compile(r"/v1/stats(/.*)?|/metrics")
"""Paths that the owner's key (`dashboard_key`) opens as well: they tell of everybody then, and spend nothing."""
_SANDBOX = ((b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff"))
_MAX_SHOWN_CHARS = 100
STATE_KEY = "proxy_key"
"""Where in `scope["state"]` the application finds the request's `ProxyKey`, or None."""


class Guard:
    """The application, guarded.

    Args:
        app: what is guarded.
        access: decides who is served.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or turn it away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        access = self._access
        text, headers = take_key(scope["headers"])
        scope["headers"] = headers
        is_probe = scope["path"] in OPEN_PATHS
        key = None
        try:
            mode = find(headers, b"sec-fetch-mode")
            access.check_place(find(headers, b"host"), find(headers, b"origin"), find(headers, b"sec-fetch-site"), mode)
            if not is_probe:
                path = scope["path"]
                is_open = is_of_dashboard(path) or (FIGURES.fullmatch(path) and access.is_owners(text))
                key = None if is_open else await access.identify(text)
                await access.enter(key)
        except AccessError as error:
            await _turn_away(scope, send, error)
            return
        scope.setdefault("state", {})[STATE_KEY] = key
        if mode == "navigate" and not is_of_dashboard(scope["path"]):
            send = _sandboxed(send)
        try:
            await self._app(scope, receive, send)
        finally:
            if not is_probe:
                access.leave(key)


def _sandboxed(send: Send) -> Send:
    """Have a browser that is shown an answer run nothing of it: an upstream's page would be one of this proxy's own."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [header for header in message.get("headers", ()) if header[0] not in dict(_SANDBOX)]
            message = {**message, "headers": [*others, *_SANDBOX]}
        await send(message)

    return sending


def is_of_dashboard(path: str) -> bool:
    """Whether a path is one of the dashboard's."""
    return path == OPEN_FOLDER or path.startswith(OPEN_FOLDER + "/")


async def _turn_away(scope: Scope, send: Send, error: AccessError) -> None:
    status, body = error_for_path(error, scope["path"])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error_headers(error)]
    peer = scope.get("client") or ("?",)
    shown = {"path": scope["path"][:_MAX_SHOWN_CHARS], "peer": peer[0]}
    if isinstance(error, ForbiddenHostError | ForbiddenOriginError):
        shown["named"] = str(find(scope["headers"], (error.param or "").encode()))[:_MAX_SHOWN_CHARS]
    logger.info(fields("turned_away", status=status, reason=rendering_of(error).code, **shown))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
