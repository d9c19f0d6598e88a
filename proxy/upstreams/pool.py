"""Connections to one origin: those that came free are used again, the newest first. Knows no request.

Names are resolved anew for each connection, and addresses tried as "happy eyeballs" (RFC 8305) has it, so that a
broken IPv6 costs a quarter of a second and no request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import aiohappyeyeballs
from yarl import URL

from sluice.proxy.errors import UpstreamConnectTimeoutError, UpstreamUnreachableError
from sluice.proxy.upstreams.connection import Connection
from sluice.proxy.upstreams.limits import HttpLimits

KEEP_ALIVE_S = 15.0
"""How long a connection is kept for the next request: less than servers and what stands before them keep theirs."""
_NEXT_ADDRESS_S = 0.25


class Pool:
    """The connections.

    Args:
        origin: scheme, host and port; a path behind them is left alone.
        limits: how long each step may take.
    """

    def __init__(self, origin: str, limits: HttpLimits) -> None:
        url = URL(origin)
        self._origin = origin
        self._limits = limits
        self._host, self._port = url.raw_host or "", url.port or 80
        self._tls = _tls() if url.scheme == "https" else None
        self._idle: dict[Connection, None] = {}
        """In the order in which they came free."""
        self._open: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    async def take(self) -> Connection:
        """A connection that nobody uses; it comes back by itself once an answer over it is whole.

        Raises:
            UpstreamConnectTimeoutError: there is none within the limit.
            UpstreamUnreachableError: there is none to be had.
        """
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_open and connection.idle_since_s + KEEP_ALIVE_S > asyncio.get_running_loop().time():
                return connection
            connection.abort()
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                return await self._connect()
        except TimeoutError:
            raise UpstreamConnectTimeoutError(self._origin, self._limits.connect_timeout_s) from None
        except OSError as error:
            raise UpstreamUnreachableError(f"cannot connect to upstream {self._origin}: {error}") from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)  # transports close in the loop's next round

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1)
        try:
            # A model that thinks for minutes sends nothing; what stands between must not take the connection for dead.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _, connection = await loop.create_connection(
                lambda: Connection(self._origin, self._limits, self._came_free, self._was_lost),
                sock=sock,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        self._open.add(connection)
        return connection

    def _came_free(self, connection: Connection) -> None:
        self._idle[connection] = None
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep)

    def _was_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def _sweep(self) -> None:
        """Close what nobody has used for a while."""
        loop = asyncio.get_running_loop()
        for connection in [one for one in self._idle if one.idle_since_s + KEEP_ALIVE_S <= loop.time()]:
            del self._idle[connection]
            connection.abort()
        self._sweeping = loop.call_later(KEEP_ALIVE_S, self._sweep) if self._idle else None


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
