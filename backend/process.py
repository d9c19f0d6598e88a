"""The engine as a child process: started, waited for, stopped, never orphaned.

The child binds a free port by itself (unless it is told which) and says it in its log, so that no port is lost between
choosing and binding. It exits at the end of its stdin: that works for a parent that was killed outright, on every
platform. Knows no torch: the proxy imports this module.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path

from sluice.backend.child import ChildProcess
from sluice.backend.errors import EngineProcessError

READY_LINE = "engine ready at "
"""What `sluice engine serve` prints before its URL once it listens."""

_READY = re.compile(re.escape(READY_LINE) + r"(http://\S+)")
_POLL_S = 0.05
_STOP_GRACE_S = 5.0


class EngineProcess:
    """`sluice engine serve` in a process group of its own."""

    def __init__(
        self,
        *,
        model: str | None = None,
        port: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        cache_dir: Path | None = None,
        max_draft_tokens: int | None = None,
        start_timeout_s: float = 600.0,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        arguments = ["serve", "--port", str(port), "--device", device, "--dtype", dtype]
        if model is not None:
            arguments += ["--model", model]
        if cache_dir is not None:
            arguments += ["--cache-dir", str(cache_dir)]
        if max_draft_tokens is not None:
            arguments += ["--max-draft-tokens", str(max_draft_tokens)]
        # -P: a file named torch.py in the user's folder must not shadow the library.
        command = [sys.executable, "-P", "-m", "sluice.backend.cli", *arguments, "--exit-with-stdin"]
        self._child = ChildProcess(command, on_line=self._on_line)
        self._start_timeout_s = start_timeout_s
        self._on_progress = on_progress
        self._announced: str | None = None
        self._has_announced = asyncio.Event()
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
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the child has been started and has not ended."""
        return self._child.is_running

    @property
    def log_tail(self) -> str:
        """The last lines that the child wrote, for error messages."""
        return self._child.log_tail

    async def start(self) -> None:
        """Start the child and wait until it answers `/healthz`.

        Raises EngineProcessError with the last lines of its log if it ends, or is not ready in time; it is not left
        running then.
        """
        if self.pid is not None:
            raise EngineProcessError("the engine's process has already been started")
        await self._child.start()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                self._base_url = await self._wait_ready()
        except TimeoutError:
            await self.stop()
            raise EngineProcessError(self._message(f"was not ready within {self._start_timeout_s:g} s")) from None
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """Wait until the child ends, however that comes; returns its exit status."""
        if self.pid is None:
            raise EngineProcessError("the engine's process has not been started")
        return await self._child.wait()

    async def stop(self) -> None:
        """End the child and all of its group: politely, then by force after the grace. Idempotent."""
        self._base_url = None
        await self._child.stop(_STOP_GRACE_S)

    async def __aenter__(self) -> EngineProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _on_line(self, line: str) -> None:
        """Note the child's URL; before it is there, pass its lines on."""
        if self._announced is not None:
            return
        if match := _READY.search(line):
            self._announced = match[1]
            self._has_announced.set()
        elif self._on_progress is not None:
            self._on_progress(line)

    async def _wait_ready(self) -> str:
        """Wait until the child has said its URL and is healthy there. Raises EngineProcessError if it ends."""
        ends = [asyncio.create_task(each) for each in (self._child.wait(), self._has_announced.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        url = self._announced
        if url is None or not await self._child.answers(f"{url}/healthz", poll_s=_POLL_S):
            status = await self._child.wait()
            raise EngineProcessError(self._message(f"ended with exit status {status} before it was ready"))
        return url

    def _message(self, what: str) -> str:
        return f"the embedded engine {what}; its last lines:\n{self.log_tail}"
