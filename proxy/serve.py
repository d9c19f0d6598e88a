"""Runs the proxy: binds, starts a backend where one is wanted, serves, and ends all of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from sluice.backend.hosts import authority, is_loopback
from sluice.proxy.app import create_app
from sluice.proxy.backends import Backend, make_backend, start_backend
from sluice.proxy.doctor.configuration import doubts
from sluice.proxy.errors import ConfigError, StartError
from sluice.proxy.log import fields, logger, say, set_up_logging
from sluice.proxy.preflight import check_start
from sluice.proxy.server import Server, server_config
from sluice.proxy.settings import Settings
from sluice.proxy.upstreams import BackendStatus

_BACKLOG = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Ending(Protocol):
    """Something that runs and can be told to end."""

    def end(self) -> None:
        """Let answers in progress come to their end; the second time, at once."""
        ...


def run(settings: Settings) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: there is nowhere to forward requests to, strangers could connect, or a file that a setting names
            cannot be used.
        StartError: the port is taken, the backend does not start, or the application does not.
    """
    if not settings.all_upstreams and settings.backend == "none":
        _warn(settings)  # of a variable that was perhaps to name one
        raise ConfigError(
            "nowhere to forward requests to: give --upstream URL (e.g. https://api.openai.com), "
            "or --backend embedded for the bundled model, or --backend vllm"
        )
    check_start(settings)
    set_up_logging(settings.log_level)
    _allow_many_connections()
    listener = bind(settings.host, settings.port)
    try:
        address: str = listener.getsockname()[0]
        check_public(address, settings)
        check_not_itself(address, listener.getsockname()[1], settings)
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


def check_not_itself(address: str, port: int, settings: Settings) -> None:
    """Check that no upstream is this proxy, which would ask itself until it is full.

    Raises:
        ConfigError: one is.
    """
    hears_loopback = is_loopback(address) or ipaddress.ip_address(address).is_unspecified
    for upstream in settings.all_upstreams:
        for origin in (upstream.origin, *upstream.replicas):
            parts = urlsplit(origin or "")
            is_here = parts.hostname == address or (hears_loopback and is_loopback(parts.hostname or ""))
            if is_here and (parts.port or _DEFAULT_PORTS.get(parts.scheme)) == port:
                raise ConfigError(
                    f"upstream {upstream.name!r} = {origin!r} is this proxy itself: name what it is to ask"
                )


def with_dashboard_key(settings: Settings, where: str) -> Settings:
    """Make a key for the dashboard where content is kept and there is no other key to show, and say it once."""
    if not settings.store_content or settings.wants_keys or settings.dashboard_key is not None:
        return settings
    key = secrets.token_urlsafe(24)
    # Behind the `#`, so that the key goes to no server and into no log of one.
    say(f"content is kept; to see it: http://{where}/dashboard#key={key}")
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
        raise StartError(_not_bound(host, port, error)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listen at once: two processes may bind one port, but only one may listen.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(_not_bound(host, port, error)) from None
    return listener


def _not_bound(host: str, port: int, error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "another program listens there ('sluice doctor' tells whether it is a proxy): "
        "end it, or take another port with --port",
        errno.EACCES: "this user may not take that port: take one above 1023 with --port",
        errno.EADDRNOTAVAIL: "this machine has no such address: take one that it has with --host",
    }
    hint = hints.get(error.errno or 0) if not isinstance(error, socket.gaierror) else "--host names no machine"
    return f"cannot listen on {host}:{port}: {error.strerror or error}" + (f"; {hint}" if hint else "")


async def _serve(settings: Settings, listener: socket.socket) -> None:
    running: list[_Ending] = []
    _on_signals(running, settings.drain_s)
    serve = _serve_http if settings.workers == 1 else _serve_with_workers
    if settings.backend == "none":
        await serve(settings, listener, running, None)
        return
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        status = BackendStatus(settings.backend, Path(folder) / "backend.json")
        backend = await _start_backend(settings, status)
        watching = asyncio.create_task(_tell_of_its_end(backend, settings.backend), name="sluice-backend")
        try:
            await serve(settings.model_copy(update={"upstream": backend.base_url}), listener, running, status)
        finally:
            watching.cancel()
            await _finish(backend.stop())


async def _tell_of_its_end(backend: Backend, kind: str) -> None:
    """Say why requests fail from here on, where the backend has been given up."""
    reason = ""
    try:
        await backend.wait()
    except Exception as error:  # by which it says why
        reason = str(error)
    effect = "its requests get 503 until sluice serve is started again"
    logger.error(fields("backend_given_up", backend=kind, reason=reason or None, effect=effect))


def _on_signals(running: list[_Ending], drain_s: float) -> None:
    """Let Ctrl-C, SIGTERM and a terminal that is closed end what is running, and cancel the start before."""
    task = asyncio.current_task()
    assert task is not None

    num_told = 0

    def end() -> None:
        nonlocal num_told
        num_told += 1
        if not running:
            task.cancel()
        elif num_told == 1:
            say(f"ending: answers in progress get {drain_s:g} s; told again, it ends at once")
        else:
            logging.getLogger("uvicorn.error").disabled = True  # what is cut off now is meant to be
        for one in running:
            one.end()

    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # else started by nohup, to outlive it
        numbers.append(hangup)
    for number in numbers:
        # Where the platform's loop has no signal handlers, Ctrl-C cancels the task, which ends everything, too.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, end)


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run something to its end, though this task be cancelled again by another signal."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


async def _start_backend(settings: Settings, status: BackendStatus) -> Backend:
    backend = make_backend(settings, status)
    try:
        await start_backend(backend, settings.backend)
    except BaseException:
        await _finish(backend.stop())
        raise
    return backend


async def _serve_http(
    settings: Settings, listener: socket.socket, running: list[_Ending], backend: BackendStatus | None
) -> None:
    server = Server(server_config(create_app(settings, backend=backend), settings))
    _say_where(settings, listener)
    running.append(server)
    await server.serve(sockets=[listener])
    if not server.started:
        raise StartError("the proxy could not start: its log, above, says why")


async def _serve_with_workers(
    settings: Settings, listener: socket.socket, running: list[_Ending], backend: BackendStatus | None
) -> None:
    from sluice.proxy.workers import Supervisor

    supervisor = Supervisor(settings, listener, backend)
    _on_signals(running, settings.drain_s)  # once more: the supervisor took the signals for itself
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
    say(" · ".join(parts))
    _warn(settings)


def _warn(settings: Settings) -> None:
    """Say which settings do not do what somebody meant."""
    for finding in doubts(settings, os.environ):
        say(f"warning: {finding.subject}: {finding.says}; {finding.remedy}")


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
