"""A server as a child process: started on a free port, waited for, killed and restarted, never left behind.

Knows a proxy from outside: its command line, a path that answers once it is ready, its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

import aiohttp

from sluice.backend.free_port import free_port
from sluice.eval.errors import ReplayError
from sluice.proxy.setting_errors import OTHERS_VARIABLES

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
LOG_TAIL_BYTES = 2_000


class ServerProcess:
    """A server that runs while it is entered.

    Args:
        command: its command line; `{port}` in it stands for the port.
        name: what it is called in errors.
        ready_path: answers with 200 once the server takes requests.
        env: added to this process's environment, of which the proxy's settings are left out.
        port: TCP port on 127.0.0.1; 0 takes a free one and keeps it over restarts.
        start_timeout_s: longest wait for it to be ready, in seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        ready_path: str,
        env: Mapping[str, str] | None = None,
        port: int = 0,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.start_s = 0.0
        """Seconds that the last start took."""
        self._command = list(command)
        self._name = name
        self._ready_path = ready_path
        self._env = dict(env or {})
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._end: asyncio.Task[int] | None = None
        self._log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Its origin, without `/v1`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __aexit__)
        self._port = self._port or free_port()
        try:
            await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop(signal.SIGTERM)
        if self._log:
            self._log.close()

    async def restart(self) -> None:
        """Kill it as a crash would, and start it again on the same port.

        Raises:
            ReplayError: it did not come up again.
        """
        await self._stop(signal.SIGKILL)
        await self._start()

    async def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        assert self._end is not None
        return await asyncio.shield(self._end)

    def log_tail(self) -> str:
        """The end of what it logged."""
        assert self._log is not None
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace").strip()

    async def _start(self) -> None:
        begun_s = time.monotonic()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(part.replace("{port}", str(self._port)) for part in self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**_inherited(), **self._env},
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it in order
            )
        except OSError as error:
            raise ReplayError(f"{self._name} cannot be started: {self._command[0]}: {error.strerror}") from error
        self._end = asyncio.create_task(_followed(self._process))
        try:
            async with asyncio.timeout(self._start_timeout_s), aiohttp.ClientSession() as session:
                while not await self._is_ready(session):
                    if self._process.returncode is not None:
                        raise ReplayError(
                            f"{self._name} ended at once (status {self._process.returncode}): {self.log_tail()}"
                        )
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ReplayError(
                f"{self._name} was not ready within {self._start_timeout_s:g} s: {self.log_tail()}"
            ) from None
        self.start_s = time.monotonic() - begun_s

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}{self._ready_path}") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def _stop(self, how: signal.Signals) -> None:
        """Signal it, not its group: what it has started is its to end, and is killed once it has ended itself."""
        if self._process is None or self._end is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        try:
            await asyncio.wait_for(self.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            _kill_group(self._process)
            await self._end


def _inherited() -> dict[str, str]:
    """This environment less the user's settings of a proxy, which would change what is judged, or where it goes."""

    def is_setting(name: str) -> bool:
        return name.upper().startswith(("SLUICE_", "OTEL_")) and name not in OTHERS_VARIABLES

    return {name: value for name, value in os.environ.items() if not is_setting(name)}


async def _followed(process: asyncio.subprocess.Process) -> int:
    """Wait for its end, and kill at once what it leaves behind, while the group's number is its own."""
    status = await process.wait()
    _kill_group(process)
    return status


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        elif process.returncode is None:
            process.kill()


class ProxyProcess(ServerProcess):
    """`sluice serve`.

    Args:
        arguments: its flags, less host and port.
        port: TCP port on 127.0.0.1; 0 takes a free one and keeps it over restarts.
    """

    def __init__(self, arguments: Sequence[str], *, port: int = 0) -> None:
        super().__init__(serve_command(arguments), name="the proxy", ready_path="/readyz", port=port)


def serve_command(arguments: Sequence[str]) -> list[str]:
    """Write the command line of `sluice serve` on a port that is filled in for `{port}`.

    The user's `./sluice.toml` is not read; a later `--config` among the arguments counts instead.
    """
    # -P: a folder of the user's that is named as one of our packages must not shadow it
    start = [sys.executable, "-P", "-c", "from sluice.proxy.cli import main; main()", "serve"]
    return [*start, "--config", os.devnull, "--host", "127.0.0.1", "--port", "{port}", *arguments]
