"""One run of `vllm serve`: started in a process group of its own, waited for, asked a known question, stopped.

A guard process leads the group and ends all of it when our end of its stdin closes, however that comes (`guard.py`).
Restarts are another module's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from sluice.backend.errors import VllmProcessError, WrongAnswerError
from sluice.backend.vllm import guard

_NUM_LOG_LINES = 60
_POLL_S = 0.25
_ANSWER_TIMEOUT_S = 300.0
_GROUP_GONE_S = 2.0
_STATUS = re.compile(r"vllm ended with exit status (-?\d+)")


class VllmProcess:
    """A vLLM server as a child.

    Args:
        command: the program and its arguments.
        environment: all of it.
        url: where it will listen, without `/v1`.
        model: what requests call it.
        start_timeout_s: longest wait until it is ready.
        drain_s: what requests in progress get at its end.
        on_progress: called with each line that it logs before it is ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        url: str,
        model: str,
        start_timeout_s: float = 1800.0,
        drain_s: float = 30.0,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url
        self.model = model
        self._command = list(command)
        self._environment = dict(environment)
        self._start_timeout_s = start_timeout_s
        self._drain_s = drain_s
        self._on_progress = on_progress
        self._log: deque[str] = deque(maxlen=_NUM_LOG_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._is_ready = False

    @property
    def pid(self) -> int | None:
        """Id of the group and of the guard that leads it; None before the start."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def log_tail(self) -> str:
        """The last lines that it wrote, for error messages."""
        return "\n".join(self._log)

    async def start(self, *, check_prompt: str = "", check_answer: str = "") -> None:
        """Start it, and wait until it is healthy and has answered the question (where there is one) rightly.

        Raises:
            VllmProcessError: it ended, or is not ready in time. It is not left running, as with the next.
            WrongAnswerError: it answers wrongly.
        """
        if self._process is not None:
            raise VllmProcessError("vLLM has already been started")
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(Path(guard.__file__)),
                str(self._drain_s),
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise VllmProcessError(f"cannot run {self._command[0]}: {error.strerror}") from None
        self._reader = asyncio.create_task(self._read_log(self._process))
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._wait_healthy()
                if check_prompt:
                    await self._check(check_prompt, check_answer)
        except TimeoutError:
            await self.kill()
            raise VllmProcessError(self._message(f"was not ready within {self._start_timeout_s:g} s")) from None
        except BaseException:
            await self.kill()
            raise
        self._is_ready = True

    async def wait(self) -> int:
        """Wait until it ends, however that comes; its exit status (negative: the signal)."""
        assert self._process is not None, "wait before start"
        assert self._reader is not None
        status = await self._process.wait()
        await self._reader
        found = [match for line in self._log if (match := _STATUS.search(line))]
        return int(found[-1][1]) if found else status

    async def stop(self) -> None:
        """Ask it to end: it takes no more requests, and those in progress get their time. Idempotent."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)  # to the guard alone, which asks and then kills
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self._drain_s + 2 * guard._GRACE_S)
        await self.kill()

    async def kill(self) -> None:
        """End the whole group at once. Idempotent."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await _wait_group_gone(process.pid)
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await process.stdin.wait_closed()
        if self._reader is not None:
            await self._reader

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Keep its last lines; pass them on while it starts."""
        assert process.stdout is not None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:  # a line beyond the reader's limit
                continue
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            if self._on_progress is not None and not self._is_ready:
                self._on_progress(line)

    async def _wait_healthy(self) -> None:
        """Ask `/health` until it answers 200. Raises VllmProcessError if it ends meanwhile."""
        async with httpx.AsyncClient(timeout=httpx.Timeout(5.0), trust_env=False) as client:
            while True:
                if not self.is_running:
                    status = await self.wait()
                    raise VllmProcessError(self._message(f"ended with exit status {status} before it was ready"))
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/health")).status_code == 200:
                        return
                await asyncio.sleep(_POLL_S)

    async def _check(self, prompt: str, answer: str) -> None:
        """Ask twice: the second answer comes out of the prefix cache. Raises WrongAnswerError."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": 8, "temperature": 0}
        async with httpx.AsyncClient(timeout=httpx.Timeout(_ANSWER_TIMEOUT_S), trust_env=False) as client:
            for source in ("computed", "from the prefix cache"):
                try:
                    response = await client.post(f"{self.url}/v1/completions", json=body)
                    response.raise_for_status()
                    text = str(response.json()["choices"][0]["text"])
                except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                    raise VllmProcessError(self._message(f"did not answer the question ({error!r})")) from None
                if not text.strip().startswith(answer):
                    raise WrongAnswerError(
                        f"vLLM continues {_short(prompt)!r} with {_short(text)!r} ({source}), not with {answer!r}: "
                        "this build computes wrongly (try enforce_eager = true), or the model cannot know it "
                        "(set check_prompt and check_answer)"
                    )

    def _message(self, what: str) -> str:
        return f"vLLM {what}; its last lines:\n{self.log_tail or '(none)'}"


async def _wait_group_gone(group: int) -> None:
    """Wait until a killed group has no process left; those that nobody reaps are not waited for long."""
    with contextlib.suppress(TimeoutError, ProcessLookupError, PermissionError):
        async with asyncio.timeout(_GROUP_GONE_S):
            while True:
                os.killpg(group, 0)
                await asyncio.sleep(0.02)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:25]} … {text[-25:]}"
