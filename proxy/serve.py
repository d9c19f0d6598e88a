"""Runs the proxy: binds, starts the embedded backend where it is wanted, serves, and ends all of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import click
import uvicorn

from sluice.proxy.app import create_app
from sluice.proxy.errors import ConfigError, StartError
from sluice.proxy.log import set_up_logging
from sluice.proxy.settings import Settings

if TYPE_CHECKING:
    from sluice.backend.process import EngineProcess

_BACKLOG = 2048
_GRACE_S = 3
"""Seconds that answers in progress get when the proxy is told to end."""
_KEEP_ALIVE_S = 75


def run(settings: Settings) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: there is nowhere to forward requests to.
        StartError: the port is taken, or the backend does not start.
    """
    if settings.upstream is None and settings.backend == "none":
        raise ConfigError(
            "nowhere to forward requests to: give --upstream URL (e.g. https://api.openai.com), "
            "or --backend embedded for the bundled model"
        )
    set_up_logging(settings.log_level)
    listener = bind(settings.host, settings.port)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, listener))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass  # told to end, and everything has ended
    finally:
        listener.close()


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
    servers: list[uvicorn.Server] = []
    _on_signals(servers)
    if settings.backend == "none":
        await _serve_http(settings, listener, servers)
        return
    engine = await _start_engine(settings)
    try:
        await _serve_http(settings.model_copy(update={"upstream": engine.base_url}), listener, servers)
    finally:
        await _finish(engine.stop())


class _Server(uvicorn.Server):
    """A server that leaves signals to us: its own handling repeats them at its end, and what is left to stop is cut."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


def _on_signals(servers: list[uvicorn.Server]) -> None:
    """Let Ctrl-C and SIGTERM end the server once there is one, and cancel the start before; twice is at once."""
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        if not servers:
            task.cancel()
        for server in servers:
            server.force_exit = server.should_exit
            server.should_exit = True

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


async def _start_engine(settings: Settings) -> EngineProcess:
    from sluice.backend.errors import BackendError
    from sluice.backend.process import EngineProcess

    engine = EngineProcess(model=settings.model, on_progress=lambda line: click.echo(line, err=True))
    click.echo("starting the embedded backend …", err=True)
    try:
        await engine.start()
    except BackendError as error:
        raise StartError(f"the embedded backend does not start: {error}") from None
    except BaseException:
        await _finish(engine.stop())
        raise
    return engine


async def _serve_http(settings: Settings, listener: socket.socket, servers: list[uvicorn.Server]) -> None:
    config = uvicorn.Config(
        create_app(settings),
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # The upstream's date passes; a second one would contradict it.
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    host, port = listener.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    state = "memory" if settings.redis_url is None else "redis"
    click.echo(
        f"sluice listens on http://{where} · upstream {settings.upstream} · mode {settings.mode} · state {state}",
        err=True,
    )
    server = _Server(config)
    servers.append(server)
    await server.serve(sockets=[listener])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The fast event loop, where the platform has it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
