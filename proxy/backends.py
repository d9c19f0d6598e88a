"""Starts the inference backend that the settings ask for, as the upstream. Each is imported where it is asked for."""

from __future__ import annotations

from typing import Protocol

import click

from sluice.proxy.errors import ConfigError, StartError
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
            return VllmServer(load_vllm_settings({**settings.vllm, **named}), on_event=_say)
        except VllmSettingsError as error:
            raise ConfigError(str(error)) from None
    from sluice.backend.process import EngineProcess

    return EngineProcess(model=settings.model, on_progress=_say)


async def start_backend(settings: Settings) -> Backend:
    """Make and start it.

    Raises:
        ConfigError: a setting of its own is wrong.
        StartError: it does not start.
    """
    from sluice.backend.errors import BackendError

    backend = make_backend(settings)
    name = {"embedded": "the embedded backend", "vllm": "vLLM"}[settings.backend]
    _say(f"starting {name} …")
    try:
        await backend.start()
    except BackendError as error:
        raise StartError(f"{name} does not start: {error}") from None
    return backend


def _say(line: str) -> None:
    click.echo(line, err=True)
