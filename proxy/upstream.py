"""Where requests go: the interface, and upstreams over HTTP.

On aiohttp itself: its transport for httpx has no write timeout, counts a wait for the pool as one for the
connection, and reports a connection that the server closed as a connect timeout. Knows no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import aiohttp
from yarl import URL

from sluice.proxy.errors import (
    UpstreamConnectTimeoutError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamPoolTimeoutError,
    UpstreamReadTimeoutError,
    UpstreamUnreachableError,
    UpstreamWriteTimeoutError,
)
from sluice.proxy.headers import Header
from sluice.proxy.settings import Settings

_PIECE_BYTES = 128 * 1024
_MAX_HEADER_BYTES = 64 * 1024


class Answer(Protocol):
    """An upstream's answer, its body not yet read. Close it in any case."""

    status: int
    """HTTP status."""
    headers: Sequence[Header]
    """All headers, as sent."""

    async def read(self) -> bytes:
        """Return the next bytes as soon as there are any; none at the end.

        Raises:
            UpstreamError: the answer broke off, or stalled.
        """
        ...

    def close(self) -> None:
        """Release the connection; an answer that is not read to its end is thereby cancelled."""
        ...


class Upstream(Protocol):
    """Sends requests to one upstream."""

    origin: str
    """Scheme, host and port, and whatever path stands before `/v1`."""

    async def send(self, method: str, path: str, headers: Sequence[Header], body: bytes = b"") -> Answer:
        """Send one request and return when the answer's head is there; cancel it to hang up.

        Args:
            method: HTTP method.
            path: path and query, from `/v1` on, quoted as the client quoted it.
            headers: end-to-end headers; `Host` and `Content-Length` are added.
            body: may be empty.

        Raises:
            UpstreamError: no answer.
        """
        ...

    async def ping(self) -> None:
        """Return once the upstream answers anything.

        Raises:
            UpstreamError: it does not.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class HttpUpstream:
    """An upstream over HTTP/1.1, with a pool of connections.

    Redirects are handed to the client, never followed: a credential goes to no other origin. Cookies are not kept:
    one pool serves many callers.
    """

    def __init__(self, origin: str, settings: Settings) -> None:
        self.origin = origin
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.max_connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, timeout_ceil_threshold=1e9),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=settings.connect_timeout_s,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.read_timeout_s,
                ceil_threshold=1e9,
            ),
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    async def send(self, method: str, path: str, headers: Sequence[Header], body: bytes = b"") -> Answer:
        """See `Upstream`."""
        try:
            async with asyncio.timeout(self._settings.pool_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            raise UpstreamPoolTimeoutError(self.origin, self._settings.pool_timeout_s) from None
        try:
            payload = _Body(body, self._settings.write_timeout_s) if body else None
            try:
                response = await self._session.request(
                    method,
                    URL(self.origin + path, encoded=True),
                    headers=[(key.decode("latin-1"), value.decode("latin-1")) for key, value in headers],
                    data=payload,
                    allow_redirects=False,
                )
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                raise self._translate(error, payload) from error
        except BaseException:
            self._slots.release()
            raise
        return _HttpAnswer(response, self)

    async def ping(self) -> None:
        """See `Upstream`."""
        answer = await self.send("GET", "/v1/models", [])
        answer.close()

    async def aclose(self) -> None:
        """See `Upstream`."""
        await self._session.close()

    def _translate(self, error: Exception, payload: _Body | None = None) -> UpstreamError:
        """Turn the client library's exception into ours."""
        settings = self._settings
        if payload is not None and payload.timed_out:
            return UpstreamWriteTimeoutError(self.origin, settings.write_timeout_s)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return UpstreamConnectTimeoutError(self.origin, settings.connect_timeout_s)
        if isinstance(error, aiohttp.SocketTimeoutError):
            return UpstreamReadTimeoutError(self.origin, settings.read_timeout_s)
        if isinstance(error, aiohttp.ClientConnectorError):
            return UpstreamUnreachableError(f"cannot connect to upstream {self.origin}: {error.os_error}")
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | aiohttp.ClientPayloadError):
            return UpstreamDisconnectedError(f"upstream {self.origin} hung up before its answer was whole")
        # What is left may quote the request or the answer, so it is named by its class alone.
        return UpstreamError(f"upstream {self.origin} gave no valid HTTP answer ({type(error).__name__})")


class _HttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse, upstream: HttpUpstream) -> None:
        self.status = response.status
        self.headers: Sequence[Header] = response.raw_headers
        self._response = response
        self._upstream: HttpUpstream | None = upstream
        self._error: UpstreamError | None = None

    async def read(self) -> bytes:
        upstream = self._upstream
        assert upstream is not None, "read after close"
        if self._error is not None:
            raise self._error
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._error = upstream._translate(error)
            self._error.__cause__ = error
        # The library's public methods hold back what had arrived before the connection broke; it is the client's.
        rest = self._response.content._read_nowait(-1)
        if rest:
            return rest
        raise self._error

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream._slots.release()
            self._upstream = None
            # At its end the connection has gone back to the pool already; before it, this cuts it.
            self._response.close()


class _Body(aiohttp.Payload):
    """A request body written in pieces, each of which the upstream has to take in time."""

    def __init__(self, body: bytes, write_timeout_s: float) -> None:
        super().__init__(body)
        self._size = len(body)
        self._write_timeout_s = write_timeout_s
        self.timed_out = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None) -> None:
        view = memoryview(self._value)
        try:
            for start in range(0, len(view), _PIECE_BYTES):
                async with asyncio.timeout(self._write_timeout_s):
                    await writer.write(view[start : start + _PIECE_BYTES])
        except TimeoutError:
            self.timed_out = True
            raise
