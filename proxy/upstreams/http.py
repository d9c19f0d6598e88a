"""One upstream over HTTP: a pool of connections to one origin. Knows no wire format, no model and no other upstream.

On aiohttp itself: its transport for httpx has no write timeout, counts a wait for the pool as one for the
connection, and reports a connection that the server closed as a connect timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

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
from sluice.proxy.upstreams.types import Answer

_PIECE_BYTES = 128 * 1024
_MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long each step of an exchange may take, and how many exchanges there may be."""

    connect_timeout_s: float = 10.0
    """Longest wait for a new connection, in seconds."""
    read_timeout_s: float = 600.0
    """Longest silence while an answer is awaited or read, in seconds."""
    write_timeout_s: float = 60.0
    """Longest time in which none of a request body is taken, in seconds."""
    pool_timeout_s: float = 10.0
    """Longest wait for one of `max_connections` to come free, in seconds."""
    max_connections: int = 4096
    """Connections at once."""


_MAX_STALE_S = 1.0
"""A kept connection that its server closed in the meantime shows it within a round trip; what takes longer was work."""


class _Attempt:
    """What is found out about one request while it is being sent."""

    is_reused = False
    """Whether it went over a connection that had been used before."""


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
    context.trace_request_ctx.is_reused = True


class HttpUpstream:
    """An upstream over HTTP/1.1, with a pool of connections.

    Redirects are handed to the client, never followed: a credential goes to no other origin. Cookies are not kept:
    one pool serves many callers.
    """

    def __init__(self, origin: str, limits: HttpLimits) -> None:
        self.origin = origin
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.max_connections)
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            trace_configs=[trace],
            connector=aiohttp.TCPConnector(limit=0, timeout_ceil_threshold=1e9),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=limits.connect_timeout_s,
                sock_connect=limits.connect_timeout_s,
                sock_read=limits.read_timeout_s,
                ceil_threshold=1e9,
            ),
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

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
        try:
            async with asyncio.timeout(self._limits.pool_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            raise UpstreamPoolTimeoutError(self.origin, self._limits.pool_timeout_s) from None
        try:
            payload = _Body(body, self._limits.write_timeout_s) if body else None
            attempt = _Attempt()
            started_s = time.monotonic()
            try:
                response = await self._session.request(
                    method,
                    URL(self.origin + path, encoded=True),
                    headers=[(key.decode("latin-1"), value.decode("latin-1")) for key, value in headers],
                    data=payload,
                    allow_redirects=False,
                    trace_request_ctx=attempt,
                )
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                translated = self._translate(error, payload)
                if isinstance(translated, UpstreamDisconnectedError) and attempt.is_reused:
                    translated.was_stale = time.monotonic() - started_s < _MAX_STALE_S
                raise translated from error
        except BaseException:
            self._slots.release()
            raise
        return _HttpAnswer(response, self)

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
        await self._session.close()

    def _translate(self, error: Exception, payload: _Body | None = None) -> UpstreamError:
        """Turn the client library's exception into ours."""
        limits = self._limits
        if payload is not None and payload.timed_out:
            return UpstreamWriteTimeoutError(self.origin, limits.write_timeout_s)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return UpstreamConnectTimeoutError(self.origin, limits.connect_timeout_s)
        if isinstance(error, aiohttp.SocketTimeoutError):
            return UpstreamReadTimeoutError(self.origin, limits.read_timeout_s)
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
