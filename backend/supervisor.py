"""Keeps a server up that runs as a child: starts it again with back-off, and gives it up where it keeps ending.

When to start again is a plain function; the class is its edge. Knows nothing of what is run. The proxy imports this
module: no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sluice.backend.errors import BackendError, GivenUpError

_MAX_WAIT_S = 60.0


class Run(Protocol):
    """One run of the server, started."""

    @property
    def pid(self) -> int | None:
        """Id of its process group."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        ...

    @property
    def log_tail(self) -> str:
        """The last lines that it wrote."""
        ...

    async def wait(self) -> int:
        """Wait until it ends, however that comes; its exit status (negative: the signal)."""
        ...

    async def stop(self) -> None:
        """End it. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a server that ended is started again. A start that fails is an end, too."""

    max_restarts: int = 5
    """Starts within the window; one end more, and it is given up."""
    window_s: float = 600.0
    """Seconds after which an end is forgotten."""
    first_wait_s: float = 1.0
    """Seconds before the first start; doubled for each end in the window, up to a minute."""


class Phase(StrEnum):
    """What a server that is kept up is doing."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    """It ended, and is started again."""
    GIVEN_UP = "given up"
    """It ended too often, and stays down."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is known of a server that is kept up."""

    phase: Phase = Phase.STARTING
    num_restarts: int = 0
    """How often it was ready again after it had ended."""
    ready_at_s: float = 0.0
    """While it is started again: when that should be done by the time that the first start took, in seconds since the
    epoch."""


def restart_wait_s(ends_s: Sequence[float], policy: RestartPolicy) -> float | None:
    """How long to wait before a server that ended is started again.

    Args:
        ends_s: when it ended, in seconds of one clock, the last time last; at least one.
        policy: see there.

    Returns:
        Seconds, or None where it is to be given up.
    """
    num_ends = sum(ends_s[-1] - end_s < policy.window_s for end_s in ends_s)
    if num_ends > policy.max_restarts:
        return None
    return min(_MAX_WAIT_S, policy.first_wait_s * 2.0 ** (num_ends - 1))


class Supervisor:
    """Keeps one server up.

    Args:
        name: what it is called in what is said of it.
        start_run: makes a run and starts it; what it raises leaves nothing running.
        policy: when it is started again.
        on_event: called with what the user should know: ends, starts, that it is given up.
        on_state: called with each new state.
    """

    def __init__(
        self,
        name: str,
        start_run: Callable[[], Awaitable[Run]],
        policy: RestartPolicy,
        *,
        on_event: Callable[[str], None],
        on_state: Callable[[ServerState], None],
    ) -> None:
        self._name = name
        self._start_run = start_run
        self._policy = policy
        self._on_event = on_event
        self._on_state = on_state
        self._run: Run | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.num_restarts = 0
        """How often it was ready again after it had ended."""

    @property
    def pid(self) -> int | None:
        """Process group of the run that is on; None where there is none."""
        return self._run.pid if self._run is not None and self._run.is_running else None

    async def start(self) -> None:
        """Start it, wait until it is ready, and keep it up from then on. Raises what `start_run` does."""
        assert self._keeper is None, "a supervisor is started once"
        self._tell(Phase.STARTING)
        started_s = time.monotonic()
        self._run = run = await self._start_run()
        self._tell(Phase.READY)
        self._keeper = asyncio.create_task(self._keep(run, time.monotonic() - started_s))

    async def wait(self) -> None:
        """Wait until it is given up; raises GivenUpError, which says why."""
        assert self._keeper is not None, "wait before start"
        await asyncio.shield(self._keeper)

    async def stop(self) -> None:
        """End it. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError, GivenUpError):
                await self._keeper
        if self._run is not None:
            await self._run.stop()

    async def _keep(self, run: Run, start_s: float) -> None:
        """Start it again whenever it ends. Raises GivenUpError once it does so too often."""
        ends_s: list[float] = []
        why = _ended(await run.wait(), run)
        while True:
            ends_s.append(time.monotonic())
            wait_s = restart_wait_s(ends_s, self._policy)
            if wait_s is None:
                self._tell(Phase.GIVEN_UP)
                raise GivenUpError(self._name, self._policy.max_restarts + 1, self._policy.window_s, why)
            self._on_event(f"{self._name} {why}\n{self._name} is started again in {wait_s:g} s")
            self._tell(Phase.RESTARTING, time.time() + wait_s + start_s)
            await asyncio.sleep(wait_s)
            try:
                self._run = run = await self._start_run()
            # The second: there was no memory left to fork, say.
            except (BackendError, OSError) as error:
                why = f"did not start: {error}"
                continue
            self.num_restarts += 1
            self._tell(Phase.READY)
            self._on_event(f"{self._name} is ready again")
            why = _ended(await run.wait(), run)

    def _tell(self, phase: Phase, ready_at_s: float = 0.0) -> None:
        self._on_state(ServerState(phase, self.num_restarts, ready_at_s))


def _ended(status: int, run: Run) -> str:
    return f"ended with exit status {status}; its last lines:\n{run.log_tail}"
