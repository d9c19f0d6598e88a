"""The HTTP server under the application: uvicorn, as this proxy runs it, in one process and in each worker."""

from __future__ import annotations

import contextlib
import gc
import math
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sluice.proxy.settings import Settings

_KEEP_ALIVE_S = 75
MAX_HEAD_BYTES = 2**20
"""Of a request line and its headers; a draft for the bundled backend is one of them."""
_HEALTHCHECK_S = 60


class BoundedProtocol(HttpToolsProtocol):
    """The server's own, with a bound on what the parser holds of a request before anybody asks for a key.

    That is its head, and the trailers of a chunked body, which it takes for headers: they are dropped, and bounded too.
    """

    _num_bytes = 0
    """That came since the request began, or since its body last went on."""
    _is_in_head = False

    def on_message_begin(self) -> None:
        """See the parser's callbacks."""
        self._is_in_head, self._num_bytes = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See the parser's callbacks."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See the parser's callbacks."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See the parser's callbacks."""
        self._num_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See the parser's callbacks."""
        self._num_bytes = 0
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._num_bytes += len(data)
        super().data_received(data)
        if self._num_bytes <= MAX_HEAD_BYTES or self.transport.is_closing():
            return
        if self._is_in_head:
            self.send_400_response(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")
        else:
            self.transport.close()  # an answer may be under way


class Server(uvicorn.Server):
    """A server that leaves signals to us: its own handling repeats them at its end, and what is left to stop is cut."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and spare what will be there to the end."""
        await super().startup(sockets)
        spare_collector()

    def end(self) -> None:
        """Let answers in progress come to their end; the second time, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def spare_collector() -> None:
    """Have the garbage collector leave alone what was made at the start, and look less often at what comes later.

    By its own settings it goes through what is kept of conversations again and again, for cycles that are not there:
    a seventh of a turn's processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def server_config(
    app: ASGIApp | Callable[[], ASGIApp], settings: Settings, *, is_factory: bool = False
) -> uvicorn.Config:
    """Configure a server of the proxy."""
    return uvicorn.Config(
        app,
        factory=is_factory,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # The upstream's date passes; a second one would contradict it.
        date_header=False,
        proxy_headers=False,
        workers=settings.workers,
        # A worker that is only starting, on a busy machine, is not one that hangs.
        timeout_worker_healthcheck=_HEALTHCHECK_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )
