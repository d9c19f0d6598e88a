"""Starts the inference backend that the settings ask for, as the upstream. Each is imported where it is asked for."""

from __future__ import annotations

from typing import Protocol

from sluice.proxy.errors import ConfigError, StartError
from sluice.proxy.log import say
from sluice.proxy.settings import Settings
from sluice.proxy.upstreams import BackendStatus


class Backend(Protocol):
    """A backend that runs."""

    @property
    def base_url(self) -> str:
        """Its origin, without `/v1`."""
        ...

    async def start(self) -> None:
        """Start it, wait until it is ready, and keep it up; a start that fails or is cancelled leaves nothing."""
        ...

    async def wait(self) -> object:
        """Wait until it is given up; what it raises says why."""
        ...

    async def stop(self) -> None:
        """End it. Idempotent."""
        ...


def make_backend(settings: Settings, status: BackendStatus) -> Backend:
    """Make the backend, not started yet.

    Args:
        settings: which, and what it serves.
        status: where its state is told.

    Raises:
        ConfigError: a setting of its own is wrong.
    """
    if settings.backend == "vllm":
        from sluice.backend.errors import VllmSettingsError
        from sluice.backend.vllm import VllmServer, load_vllm_settings

        named = {"model": settings.model} if settings.model is not None else {}
        try:
            chosen = load_vllm_settings({**settings.vllm, **named})
            raw = {"extra_args": (*chosen.extra_args, *settings.backend_args)}
            return VllmServer(chosen.model_copy(update=raw), on_event=say, on_state=status.write)
        except VllmSettingsError as error:
            raise ConfigError(str(error)) from None
    if settings.backend_args:
        raise ConfigError(f"backend_args = {' '.join(settings.backend_args)!r}: only vLLM takes arguments of its own")
    from sluice.backend.engine_server import EngineServer

    return EngineServer(model=settings.model, on_event=say, on_state=status.write)


async def start_backend(backend: Backend, kind: str) -> None:
    """Start it.

    Raises:
        StartError: it does not start.
    """
    from sluice.backend.errors import BackendError

    name = {"embedded": "the embedded backend", "vllm": "vLLM"}[kind]
    say(f"starting {name} …")
    try:
        await backend.start()
    except BackendError as error:
        raise StartError(f"{name} does not start: {error}") from None
