"""One upstream over HTTP/1.1. Knows no wire format, no model and no other upstream.

Redirects are handed to the client, never followed: a credential goes to no other origin. Cookies are not kept: one
pool serves many callers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from yarl import URL

from sluice.proxy.errors import UpstreamDisconnectedError, UpstreamError, UpstreamPoolTimeoutError
from sluice.proxy.headers import Header
from sluice.proxy.upstreams.limits import HttpLimits
from sluice.proxy.upstreams.pool import Pool
from sluice.proxy.upstreams.types import Answer

_MAX_STALE_S = 1.0
"""A kept connection that its server closed in the meantime shows it within a round trip; what takes longer was work."""
_BODILESS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods whose requests say nothing of the length of a body where they have none (RFC 9110, 8.6)."""


class HttpUpstream:
    """An upstream over HTTP/1.1, with a pool of connections.

    Args:
        origin: scheme, host and port, and whatever path stands before the API's own.
        limits: how long each step may take.
    """

    def __init__(self, origin: str, limits: HttpLimits) -> None:
        self.origin = origin
        self._path = URL(origin).raw_path.rstrip("/")
        self._host = URL(origin).raw_authority.encode()
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.max_connections)
        self._pool = Pool(origin, limits)

    async def send(self, method: str, path: str, headers: Sequence[Header], body: bytes = b"") -> Answer:
        """Send one request and return when the answer's head is there; cancel it to hang up.

        Args:
            method: HTTP method.
            path: path and query behind the origin, quoted as the client quoted it.
            headers: end-to-end headers; `Host` and `Content-Length` are added.
            body: may be empty.

        Raises:
            UpstreamError: no answer.
        """
        head = self._head(method, path, headers, len(body))
        if not self._slots.locked():
            await self._slots.acquire()
        else:
            try:
                async with asyncio.timeout(self._limits.pool_timeout_s):
                    await self._slots.acquire()
            except TimeoutError:
                raise UpstreamPoolTimeoutError(self.origin, self._limits.pool_timeout_s) from None
        try:
            connection = await self._pool.take()
            is_reused = connection.is_reused
            started_s = time.monotonic()
            try:
                answer = await connection.ask(head, body, is_head_request=method == "HEAD")
            except UpstreamDisconnectedError as error:
                error.was_stale = is_reused and time.monotonic() - started_s < _MAX_STALE_S
                raise
        except BaseException:
            self._slots.release()
            raise
        answer.on_close = self._slots.release
        return answer

    async def ping(self, path: str, *, must_be_ok: bool) -> None:
        """Return once the upstream answers.

        Args:
            path: what is asked for.
            must_be_ok: whether an answer other than 200 is none, as with a server that is still loading its model.

        Raises:
            UpstreamError: it does not.
        """
        answer = await self.send("GET", path, [])
        answer.close()
        if must_be_ok and answer.status != 200:
            raise UpstreamError(f"upstream {self.origin} is not ready: {path} answers {answer.status}")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    def _head(self, method: str, path: str, headers: Sequence[Header], num_body_bytes: int) -> bytes:
        """The head of a request.

        Raises:
            UpstreamError: it would say more than one request.
        """
        target = f"{method} {self._path}{path} HTTP/1.1".encode("latin-1")
        lines = [target, b"host: " + self._host, *(name + b": " + value for name, value in headers)]
        if num_body_bytes or method not in _BODILESS:
            lines.append(b"content-length: %d" % num_body_bytes)
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        # Each is checked where it comes in; here once more, as what gets by would be a request in our name.
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or target.count(b" ") != 2:
            raise UpstreamError(f"a request to upstream {self.origin} has a line break or a space in its head")
        return head
