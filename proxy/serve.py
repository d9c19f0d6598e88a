"""Runs the proxy: binds, starts a backend where one is wanted, serves, and ends all of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import click
from pydantic import SecretStr

from sluice.proxy.access.hosts import authority, is_loopback
from sluice.proxy.app import create_app
from sluice.proxy.backends import Backend, make_backend, start_backend
from sluice.proxy.errors import ConfigError, StartError
from sluice.proxy.log import set_up_logging
from sluice.proxy.server import Server, server_config
from sluice.proxy.settings import Settings

_BACKLOG = 2048


class _Ending(Protocol):
    """Something that runs and can be told to end."""

    def end(self) -> None:
        """Let answers in progress come to their end; the second time, at once."""
        ...


def run(settings: Settings) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: there is nowhere to forward requests to, or strangers could connect.
        StartError: the port is taken, or the backend does not start.
    """
    if not settings.all_upstreams and settings.backend == "none":
        raise ConfigError(
            "nowhere to forward requests to: give --upstream URL (e.g. https://api.openai.com), "
            "or --backend embedded for the bundled model, or --backend vllm"
        )
    set_up_logging(settings.log_level)
    _allow_many_connections()
    listener = bind(settings.host, settings.port)
    try:
        address: str = listener.getsockname()[0]
        check_public(address, settings)
        # What it is bound to says more than what it was told: a name may stand for loopback.
        settings = with_dashboard_key(settings.model_copy(update={"host": address}), _where(listener))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, listener))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass  # told to end, and everything has ended
    finally:
        listener.close()


def check_public(address: str, settings: Settings) -> None:
    """Check that not everybody who can connect may spend.

    Raises:
        ConfigError: other machines can connect, and nothing is asked of them.
    """
    if not (is_loopback(address) or settings.wants_keys or settings.allow_public):
        raise ConfigError(
            f"host = {settings.host!r} lets other machines connect, and no key is asked for: make keys with "
            "'sluice keys add' and set keys_file, or set allow_public = true (--allow-public)"
        )


def with_dashboard_key(settings: Settings, where: str) -> Settings:
    """Make a key for the dashboard where content is kept and there is no other key to show, and say it once."""
    if not settings.store_content or settings.wants_keys or settings.dashboard_key is not None:
        return settings
    key = secrets.token_urlsafe(24)
    # Behind the `#`, so that the key goes to no server and into no log of one.
    click.echo(f"content is kept; to see it: http://{where}/dashboard#key={key}", err=True)
    return settings.model_copy(update={"dashboard_key": SecretStr(key)})


def bind(host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Raises:
        StartError: the address is taken or not ours.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listen at once: two processes may bind one port, but only one may listen.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listener


async def _serve(settings: Settings, listener: socket.socket) -> None:
    running: list[_Ending] = []
    _on_signals(running)
    serve = _serve_http if settings.workers == 1 else _serve_with_workers
    if settings.backend == "none":
        await serve(settings, listener, running)
        return
    backend = await _start_backend(settings)
    try:
        await serve(settings.model_copy(update={"upstream": backend.base_url}), listener, running)
    finally:
        await _finish(backend.stop())


def _on_signals(running: list[_Ending]) -> None:
    """Let Ctrl-C and SIGTERM end what is running once there is something, and cancel the start before."""
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        if not running:
            task.cancel()
        for one in running:
            one.end()

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        # Where the platform's loop has no signal handlers, Ctrl-C cancels the task, which ends everything, too.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal_number, end)


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run something to its end, though this task be cancelled again by another signal."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


async def _start_backend(settings: Settings) -> Backend:
    backend = make_backend(settings)
    try:
        await start_backend(backend, settings.backend)
    except BaseException:
        await _finish(backend.stop())
        raise
    return backend


async def _serve_http(settings: Settings, listener: socket.socket, running: list[_Ending]) -> None:
    _say_where(settings, listener)
    server = Server(server_config(create_app(settings), settings))
    running.append(server)
    await server.serve(sockets=[listener])


async def _serve_with_workers(settings: Settings, listener: socket.socket, running: list[_Ending]) -> None:
    from sluice.proxy.workers import Supervisor

    supervisor = Supervisor(settings, listener)
    _on_signals(running)  # once more: the supervisor took the signals for itself
    running.append(supervisor)
    _say_where(settings, listener)
    try:
        await asyncio.to_thread(supervisor.run)
    finally:
        supervisor.close()


def _say_where(settings: Settings, listener: socket.socket) -> None:
    upstreams = [upstream.address for upstream in settings.all_upstreams]
    parts = [
        f"sluice listens on http://{_where(listener)}",
        f"upstream {', '.join(upstreams)}",
        f"mode {settings.mode}",
        f"state {'memory' if settings.redis_url is None else 'redis'}",
    ]
    if settings.workers > 1:
        parts.append(f"workers {settings.workers}")
    if settings.wants_keys:
        parts.append("keys wanted")
    parts.append("dashboard at /dashboard")
    click.echo(" · ".join(parts), err=True)


def _where(listener: socket.socket) -> str:
    return authority(*listener.getsockname()[:2])


def _allow_many_connections() -> None:
    """Raise the number of open files as far as this user may: each stream takes two. Workers inherit it."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The fast event loop, where the platform has it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
