"""The managed vLLM over its life: one port, started, restarted with back-off after a crash, drained at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from sluice.backend.errors import BackendError, VllmProcessError
from sluice.backend.settings import default_cache_dir
from sluice.backend.vllm.environment import Environment, find_environment
from sluice.backend.vllm.extras import check_extras
from sluice.backend.vllm.flags import arguments, environment
from sluice.backend.vllm.process import VllmProcess
from sluice.backend.vllm.settings import VllmSettings

_HOST = "127.0.0.1"
_MAX_DELAY_S = 60.0
TRY_OUT_MAX_MODEL_LEN = 4096
"""Window of the bundled weights, where none is set."""


class VllmServer:
    """A vLLM that stays up.

    Args:
        settings: of the server.
        on_event: called with what the user should know: lines of the start, crashes, restarts.
        installed: where vLLM is; None looks for it.
    """

    def __init__(
        self,
        settings: VllmSettings,
        *,
        on_event: Callable[[str], None] | None = None,
        installed: Environment | None = None,
    ) -> None:
        self._settings = settings
        self._on_event = on_event or (lambda _: None)
        self._installed = installed
        self._port = settings.port
        self._process: VllmProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._failure: VllmProcessError | None = None
        self.num_restarts = 0
        """Starts after a crash so far."""

    @property
    def base_url(self) -> str:
        """Its origin, without `/v1`; the same over restarts."""
        return f"http://{_HOST}:{self._port}"

    @property
    def model(self) -> str:
        """What requests call the model."""
        return self._settings.served_model_name or self._settings.model or "default"

    @property
    def pid(self) -> int | None:
        """Process group of the run that is on; None where there is none."""
        return self._process.pid if self._process is not None and self._process.is_running else None

    async def start(self) -> None:
        """Start it, wait until it is ready, and keep it up from then on.

        Raises:
            VllmError: it is not installed, does not start, or answers wrongly.
            WeightsError: the bundled weights cannot be had.
        """
        self._installed = self._installed or find_environment(self._settings.env_dir)
        check_extras(self._settings, self._installed)
        self._port = self._port or _free_port()
        await self._run()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Drain and end it. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is not None:
            await self._process.stop()

    async def wait(self) -> None:
        """Wait until it is given up; raises VllmProcessError that says why."""
        assert self._keeper is not None, "wait before start"
        await asyncio.shield(self._keeper)
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> VllmServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self) -> None:
        """Start one run."""
        installed = self._installed
        assert installed is not None
        model, settings = await asyncio.to_thread(self._resolve)
        command = arguments(settings, model=model, host=_HOST, port=self._port, is_cpu=installed.is_cpu)
        self._process = VllmProcess(
            [str(installed.program), *command],
            environment=environment(settings, os.environ),
            url=self.base_url,
            model=self.model,
            start_timeout_s=settings.start_timeout_s,
            drain_s=settings.drain_s,
            on_progress=self._on_event,
        )
        await self._process.start(check_prompt=settings.check_prompt, check_answer=settings.check_answer)

    def _resolve(self) -> tuple[str, VllmSettings]:
        """What `vllm serve` is given as its model, and the settings with what follows from that."""
        # Under the name that was set, also where that is a path which is written out for vLLM.
        settings = self._settings.model_copy(update={"served_model_name": self.model})
        if settings.model is not None:
            path = Path(settings.model).expanduser()
            return (str(path) if path.exists() else settings.model), settings
        from sluice.backend.weights import default_weights

        folder = default_weights(default_cache_dir(), self._on_event)
        window = settings.max_model_len or TRY_OUT_MAX_MODEL_LEN
        return str(folder), settings.model_copy(update={"max_model_len": window})

    async def _keep(self) -> None:
        """Start it again whenever it ends, until it does so too often."""
        settings = self._settings
        crashes: list[float] = []
        while True:
            assert self._process is not None
            status = await self._process.wait()
            now_s = time.monotonic()
            crashes = [at_s for at_s in crashes if now_s - at_s < settings.restart_window_s] + [now_s]
            if len(crashes) > settings.max_restarts:
                self._failure = VllmProcessError(
                    f"vLLM ended {len(crashes)} times within {settings.restart_window_s:g} s and is given up; "
                    f"its last lines:\n{self._process.log_tail}"
                )
                self._on_event(str(self._failure))
                return
            delay_s = restart_delay_s(len(crashes), settings.restart_delay_s)
            self._on_event(f"vLLM ended with status {status}; starting it again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            try:
                await self._run()
            except BackendError as error:
                self._on_event(str(error))
                continue  # the run has ended: counts as the next crash
            self.num_restarts += 1
            self._on_event("vLLM is ready again")


def restart_delay_s(num_crashes: int, first_s: float) -> float:
    """Wait before a restart: doubled with each crash, a minute at most."""
    return min(_MAX_DELAY_S, first_s * 2.0 ** (num_crashes - 1))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
