"""A server as a child process: started in a group of its own, its last lines kept, ended with all that it started.

It holds the read end of a pipe as stdin, which tells it (or what guards it) that we are gone, however that came. Knows
nothing of what is run. The proxy imports this module: no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import httpx

_NUM_LOG_LINES = 60
_ANSWER_TIMEOUT_S = 5.0
_CHECK_S = 0.25
_GROUP_GONE_S = 2.0


class ChildProcess:
    """One run of a program.

    Args:
        command: the program and its arguments.
        environment: all of it; None: ours.
        on_line: called with each line that it writes; a line for which it fails is passed over.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._command = tuple(command)
        self._environment = environment
        self._on_line = on_line
        self._log: deque[str] = deque(maxlen=_NUM_LOG_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._end: asyncio.Task[int] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, which is also its group's; None before the start."""
        return self._process.pid if self._process is not None else None

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def log_tail(self) -> str:
        """The last lines that it wrote, for error messages."""
        return "\n".join(self._log) or "(none)"

    async def start(self) -> None:
        """Start it.

        Raises:
            OSError: the program cannot be run.
        """
        assert self._process is None, "a child process is started once"
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=os.name == "posix",
        )
        self._end = asyncio.create_task(self._follow(self._process))

    async def wait(self) -> int:
        """Wait until it has ended, however that comes, and all of its group with it; its exit status."""
        assert self._end is not None, "wait before start"
        return await asyncio.shield(self._end)

    async def answers(self, url: str, *, poll_s: float) -> bool:
        """Ask `url` until it answers 200; False where the child ends first."""
        async with httpx.AsyncClient(timeout=_ANSWER_TIMEOUT_S, trust_env=False) as client:
            while self.is_running:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(url)).status_code == 200:
                        return True
                await asyncio.sleep(poll_s)
        return False

    async def stop(self, grace_s: float) -> None:
        """Ask it (not its group) to end, and end all of the group once it has, or after the grace. Idempotent."""
        if self._process is not None and self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace_s)
        await self.kill()

    async def kill(self) -> None:
        """End the whole group at once. Idempotent."""
        if self._process is not None:
            if self.is_running:
                self._kill_group()
            await self.wait()

    async def _follow(self, process: asyncio.subprocess.Process) -> int:
        """Read its log until it ends, and end at once what it leaves behind, while the group's number is its own."""
        log, ended = asyncio.create_task(self._read_log(process)), asyncio.create_task(process.wait())
        while process.returncode is None:  # asyncio's own wait lasts until nobody holds the log open
            await asyncio.wait([ended], timeout=_CHECK_S)
        self._kill_group()
        status = await ended
        await log
        if os.name == "posix":
            await _wait_group_gone(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ConnectionError):
            await process.stdin.wait_closed()
        return status

    def _kill_group(self) -> None:
        """Kill the group; where there are no groups, the child alone."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            elif self._process.returncode is None:
                self._process.kill()

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:  # a line beyond the reader's limit: dropped, the next one counts again
                continue
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            if self._on_line is not None:
                # A pipe that nobody reads stops whoever writes into it, and asyncio waits for its end.
                with contextlib.suppress(Exception):
                    self._on_line(line)


async def _wait_group_gone(group: int) -> None:
    """Wait until a killed group has no process left; those that nobody reaps are not waited for long."""
    with contextlib.suppress(TimeoutError, ProcessLookupError, PermissionError):
        async with asyncio.timeout(_GROUP_GONE_S):
            while True:
                os.killpg(group, 0)
                await asyncio.sleep(0.02)
