"""An answer as it comes in over a connection: held until it is read, and the upstream held back meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header

_MAX_HELD_BYTES = 256 * 1024
"""More than this that nobody has read, and the connection is not read from until it is."""


class Source(Protocol):
    """What an answer comes over."""

    def pause(self) -> None:
        """Take no more from the upstream, until `resume`."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    def abort(self) -> None:
        """Hang up."""
        ...


class HttpAnswer:
    """An answer that comes over a connection; see `Answer`.

    Args:
        connection: that it comes over; let go of once the answer is whole.
    """

    def __init__(self, connection: Source) -> None:
        self.status = 0
        self.headers: Sequence[Header] = ()
        self.on_close: Callable[[], None] | None = None
        """Called once, when the answer is closed."""
        self._connection: Source | None = connection
        self._parts: list[bytes] = []
        self._num_held = 0
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """See `Answer`. What came before a connection broke is the client's, and comes before the error."""
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._num_held = 0
        if self._connection is not None:
            self._connection.resume()
        return data

    def close(self) -> None:
        """See `Answer`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def take(self, parts: list[bytes]) -> None:
        """Take pieces of the body, and let whoever reads go on."""
        if not parts:
            return
        self._parts += parts
        self._num_held += sum(map(len, parts))
        self._wake()

    def end(self, error: UpstreamError | None = None) -> None:
        """Note that nothing more comes, and why if that is not as it should be."""
        self._connection = None
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._num_held > _MAX_HELD_BYTES and self._connection is not None:
            self._connection.pause()
