"""The managed vLLM over its life: one port, kept up by a supervisor, drained at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from sluice.backend.free_port import free_port
from sluice.backend.settings import default_cache_dir
from sluice.backend.supervisor import RestartPolicy, ServerState, Supervisor
from sluice.backend.vllm.environment import Environment, find_environment
from sluice.backend.vllm.extras import check_extras
from sluice.backend.vllm.flags import arguments, environment
from sluice.backend.vllm.process import VllmProcess
from sluice.backend.vllm.settings import VllmSettings

_HOST = "127.0.0.1"
TRY_OUT_MAX_MODEL_LEN = 4096
"""Window of the bundled weights, where none is set."""


class VllmServer:
    """A vLLM that stays up.

    Args:
        settings: of the server.
        on_event: called with what the user should know: lines of the start, crashes, restarts.
        on_state: called with each new state.
        installed: where vLLM is; None looks for it.
    """

    def __init__(
        self,
        settings: VllmSettings,
        *,
        on_event: Callable[[str], None] | None = None,
        on_state: Callable[[ServerState], None] | None = None,
        installed: Environment | None = None,
    ) -> None:
        self._settings = settings
        self._on_event = on_event or (lambda _: None)
        self._installed = installed
        self._port = settings.port
        self._supervisor = Supervisor(
            "vLLM",
            self._run,
            RestartPolicy(settings.max_restarts, settings.restart_window_s, settings.restart_delay_s),
            on_event=self._on_event,
            on_state=on_state or (lambda _: None),
        )

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
        return self._supervisor.pid

    @property
    def num_restarts(self) -> int:
        """How often it was ready again after a crash."""
        return self._supervisor.num_restarts

    async def start(self) -> None:
        """Start it, wait until it is ready, and keep it up from then on.

        Raises:
            VllmError: it is not installed, does not start, or answers wrongly.
            WeightsError: the bundled weights cannot be had.
        """
        self._installed = self._installed or find_environment(self._settings.env_dir)
        check_extras(self._settings, self._installed)
        self._port = self._port or free_port()
        await self._supervisor.start()

    async def stop(self) -> None:
        """Drain and end it. Idempotent."""
        await self._supervisor.stop()

    async def wait(self) -> None:
        """Wait until it is given up; raises GivenUpError, which says why."""
        await self._supervisor.wait()

    async def __aenter__(self) -> VllmServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self) -> VllmProcess:
        """Start one run."""
        installed = self._installed
        assert installed is not None
        model, settings = await asyncio.to_thread(self._resolve)
        command = arguments(settings, model=model, host=_HOST, port=self._port, is_cpu=installed.is_cpu)
        process = VllmProcess(
            [str(installed.program), *command],
            environment=environment(settings, os.environ),
            url=self.base_url,
            model=self.model,
            start_timeout_s=settings.start_timeout_s,
            drain_s=settings.drain_s,
            on_progress=self._on_event,
        )
        await process.start(check_prompt=settings.check_prompt, check_answer=settings.check_answer)
        return process

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
