"""The HTTP server under the application: uvicorn, as this proxy runs it, in one process and in each worker."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from sluice.proxy.settings import Settings

_KEEP_ALIVE_S = 75
_HEALTHCHECK_S = 60


class Server(uvicorn.Server):
    """A server that leaves signals to us: its own handling repeats them at its end, and what is left to stop is cut."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield

    def end(self) -> None:
        """Let answers in progress come to their end; the second time, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def server_config(
    app: ASGIApp | Callable[[], ASGIApp], settings: Settings, *, is_factory: bool = False
) -> uvicorn.Config:
    """Configure a server of the proxy."""
    return uvicorn.Config(
        app,
        factory=is_factory,
        http="httptools",
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
