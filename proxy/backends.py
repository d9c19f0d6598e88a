"""Starts the inference backend that the settings ask for, as the upstream. Each is imported where it is asked for."""

from __future__ import annotations

from typing import Protocol

from sluice.proxy.errors import ConfigError, StartError
from sluice.proxy.log import say
from sluice.proxy.settings import Settings


class Backend(Protocol):
    """A backend that runs."""

    @property
    def base_url(self) -> str:
        """Its origin, without `/v1`."""
        ...

    async def start(self) -> None:
        """Start it and wait until it is ready; what goes wrong, or a cancellation, leaves nothing running."""
        ...

    async def wait(self) -> object:
        """Wait until it has ended for good; what it raises says why."""
        ...

    async def stop(self) -> None:
        """End it. Idempotent."""
        ...


def make_backend(settings: Settings) -> Backend:
    """Make the backend, not started yet.

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
            return VllmServer(chosen.model_copy(update=raw), on_event=say)
        except VllmSettingsError as error:
            raise ConfigError(str(error)) from None
    if settings.backend_args:
        raise ConfigError(f"backend_args = {' '.join(settings.backend_args)!r}: only vLLM takes arguments of its own")
    from sluice.backend.process import EngineProcess

    return EngineProcess(model=settings.model, on_progress=say)


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
