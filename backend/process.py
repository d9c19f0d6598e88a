"""The engine as a child process: started, waited for, stopped, never orphaned.

The child binds its own free port and says which in its log, so that no port is lost between choosing and binding.
It holds the read end of a pipe as stdin and exits at its end: that works for a parent that was killed outright, on
every platform. Knows no torch: the proxy imports this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import httpx

from sluice.backend.errors import EngineProcessError

READY_LINE = "engine ready at "
"""What `sluice engine serve` prints before its URL once it listens."""

_READY = re.compile(re.escape(READY_LINE) + r"(http://\S+)")
_NUM_LOG_LINES = 40


class EngineProcess:
    """`sluice engine serve` in a process group of its own."""

    def __init__(
        self,
        *,
        model: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        host: str = "127.0.0.1",
        port: int = 0,
        cache_dir: Path | None = None,
        max_draft_tokens: int | None = None,
        start_timeout_s: float = 600.0,
        stop_grace_s: float = 5.0,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        arguments = ["serve", "--host", host, "--port", str(port), "--device", device, "--dtype", dtype]
        if model is not None:
            arguments += ["--model", model]
        if cache_dir is not None:
            arguments += ["--cache-dir", str(cache_dir)]
        if max_draft_tokens is not None:
            arguments += ["--max-draft-tokens", str(max_draft_tokens)]
        self._arguments = [*arguments, "--exit-with-stdin"]
        self._start_timeout_s = start_timeout_s
        self._stop_grace_s = stop_grace_s
        self._on_progress = on_progress
        self._log: deque[str] = deque(maxlen=_NUM_LOG_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._url: asyncio.Future[str] | None = None
        self._base_url: str | None = None

    @property
    def base_url(self) -> str:
        """Origin of the engine's OpenAI server, without `/v1`. Raises EngineProcessError before it is ready."""
        if self._base_url is None:
            raise EngineProcessError("the engine's process has not been started")
        return self._base_url

    @property
    def pid(self) -> int | None:
        """Process id of the child, which is also its group's; None before the start."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether the child has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def log_tail(self) -> str:
        """The last lines that the child wrote, for error messages."""
        return "\n".join(self._log)

    async def start(self) -> None:
        """Start the child and wait until it answers `/healthz`.

        Raises EngineProcessError with the last lines of its log if it ends, or is not ready in time; it is not left
        running then.
        """
        if self._process is not None:
            raise EngineProcessError("the engine's process has already been started")
        loop = asyncio.get_running_loop()
        self._url = loop.create_future()
        deadline_s = time.monotonic() + self._start_timeout_s
        # -P: a file named torch.py in the user's folder must not shadow the library.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "sluice.backend.cli",
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=os.name == "posix",
        )
        self._reader = asyncio.create_task(self._read_log(self._process))
        try:
            url = await asyncio.wait_for(self._url, self._start_timeout_s)
            await self._wait_healthy(url, deadline_s)
        except TimeoutError:
            await self.stop()
            raise EngineProcessError(self._message(f"was not ready within {self._start_timeout_s:g} s")) from None
        except BaseException:
            await self.stop()
            raise
        self._base_url = url

    async def wait(self) -> int:
        """Wait until the child ends, however that comes; returns its exit status."""
        if self._process is None:
            raise EngineProcessError("the engine's process has not been started")
        return await self._process.wait()

    async def stop(self) -> None:
        """End the child and all of its group: politely, then by force after the grace. Idempotent."""
        process, self._base_url = self._process, None
        if process is None:
            return
        if process.returncode is None:
            _signal_group(process, force=False)
            try:
                await asyncio.wait_for(process.wait(), self._stop_grace_s)
            except TimeoutError:
                _signal_group(process, force=True)
                await process.wait()
        _signal_group(process, force=True)  # what it may have started itself
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await process.stdin.wait_closed()
        if self._reader is not None:
            await self._reader

    async def __aenter__(self) -> EngineProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Keep the child's last lines, pass them on while it starts, and note its URL or its end."""
        assert process.stdout is not None
        assert self._url is not None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:  # a line beyond the reader's limit: dropped, the next one counts again
                continue
            if not raw:
                break
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            if self._url.done():
                continue
            if match := _READY.search(line):
                self._url.set_result(match[1])
            elif self._on_progress is not None:
                self._on_progress(line)
        code = await process.wait()
        if not self._url.done():
            self._url.set_exception(
                EngineProcessError(self._message(f"ended with exit status {code} before it was ready"))
            )

    async def _wait_healthy(self, url: str, deadline_s: float) -> None:
        """Ask `/healthz` until it answers 200.

        Raises TimeoutError, or EngineProcessError if the child ends meanwhile.
        """
        async with httpx.AsyncClient(timeout=httpx.Timeout(5.0), trust_env=False) as client:
            while time.monotonic() < deadline_s:
                if not self.is_running:
                    raise EngineProcessError(self._message("ended before it was ready"))
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{url}/healthz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)
        raise TimeoutError

    def _message(self, what: str) -> str:
        return f"the embedded engine {what}; its last lines:\n{self.log_tail or '(none)'}"


def _signal_group(process: asyncio.subprocess.Process, *, force: bool) -> None:
    """Signal the child's whole group; where there are no groups, the child alone. No error if it has gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
        elif process.returncode is None:
            process.kill() if force else process.terminate()
