"""Several processes that serve one socket: starts them, replaces one that died, ends them when told.

Built on uvicorn's supervisor. What workers have to share lies in Redis; their counters lie in a folder of files that
any of them sums up (prometheus_client's way).
"""

from __future__ import annotations

import functools
import os
import socket
import tempfile

from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from sluice.proxy.app import create_app
from sluice.proxy.log import fields, logger, set_up_logging
from sluice.proxy.parent import end_with_parent
from sluice.proxy.server import server_config, spare_collector
from sluice.proxy.settings import Settings
from sluice.proxy.upstreams import BackendStatus

_COUNTERS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks for the folder that workers share; it has no other way to be told."""


class Supervisor(Multiprocess):
    """Keeps the workers alive. Make it on the main thread, run it on another.

    Args:
        settings: what each worker serves by; `workers` says how many there are.
        listener: the socket that they share.
        backend: what is known of the backend that runs as the upstream; None: there is none.
    """

    def __init__(self, settings: Settings, listener: socket.socket, backend: BackendStatus | None = None) -> None:
        app = functools.partial(worker_app, settings, backend)
        super().__init__(server_config(app, settings, is_factory=True), [listener])
        self._counters = tempfile.TemporaryDirectory(prefix="sluice-")
        os.environ[_COUNTERS_FOLDER] = self._counters.name

    def end(self) -> None:
        """Let answers in progress come to their end; the second time, kill the workers."""
        if self.should_exit.is_set():
            for worker in self.processes:
                worker.process.kill()
        self.should_exit.set()
        # Connections that come while the workers drain are refused, not left waiting for nobody.
        for shared in self.sockets:
            shared.close()

    def keep_subprocess_alive(self) -> None:
        """Replace workers that died."""
        for worker in self.processes:
            # The worker's own end of its pipe: while it is open here too, one that is killed while it is asked whether
            # it lives is waited for as one that is busy.
            worker.child_conn.close()
        before = {worker.pid for worker in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {worker.pid for worker in self.processes}:
            logger.warning(fields("worker_replaced", pid=pid))
            mark_process_dead(pid, self._counters.name)  # type: ignore[no-untyped-call]  # it has no types

    def close(self) -> None:
        """Remove what the workers counted."""
        os.environ.pop(_COUNTERS_FOLDER, None)
        self._counters.cleanup()


def worker_app(settings: Settings, backend: BackendStatus | None) -> FastAPI:
    """Make a worker's application, in the worker."""
    set_up_logging(settings.log_level)
    end_with_parent()
    app = create_app(settings, backend=backend)
    spare_collector()
    return app
