"""The embedded engine over its life: a process of its own, kept up on one port.

Knows no torch: the proxy imports this module.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from sluice.backend.errors import EngineProcessError
from sluice.backend.process import EngineProcess
from sluice.backend.supervisor import RestartPolicy, ServerState, Supervisor


class EngineServer:
    """An embedded engine that stays up.

    Args:
        model: see `sluice engine serve`.
        policy: when it is started again.
        on_event: called with what the user should know: lines of the start, crashes, restarts.
        on_state: called with each new state.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        policy: RestartPolicy | None = None,
        on_event: Callable[[str], None] | None = None,
        on_state: Callable[[ServerState], None] | None = None,
    ) -> None:
        self._model = model
        self._on_event = on_event or (lambda _: None)
        self._base_url: str | None = None
        self._supervisor = Supervisor(
            "the embedded engine",
            self._run,
            policy or RestartPolicy(),
            on_event=self._on_event,
            on_state=on_state or (lambda _: None),
        )

    @property
    def base_url(self) -> str:
        """Its origin, without `/v1`; the same over restarts. Raises EngineProcessError before it has been ready."""
        if self._base_url is None:
            raise EngineProcessError("the embedded engine has not been started")
        return self._base_url

    @property
    def pid(self) -> int | None:
        """Process group of the run that is on; None where there is none."""
        return self._supervisor.pid

    async def start(self) -> None:
        """Start it, wait until it is ready, and keep it up from then on. Raises EngineProcessError."""
        await self._supervisor.start()

    async def wait(self) -> None:
        """Wait until it is given up; raises GivenUpError, which says why."""
        await self._supervisor.wait()

    async def stop(self) -> None:
        """End it. Idempotent."""
        await self._supervisor.stop()

    async def __aenter__(self) -> EngineServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self) -> EngineProcess:
        """Start one run, on the port that the first one took."""
        port = urlsplit(self._base_url).port if self._base_url is not None else None
        process = EngineProcess(model=self._model, port=port or 0, on_progress=self._on_event)
        await process.start()
        self._base_url = process.base_url
        return process
