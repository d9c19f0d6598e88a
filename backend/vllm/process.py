"""One run of `vllm serve`: started in a process group of its own, waited for, asked a known question, stopped.

A guard process leads the group and ends all of it when our end of its stdin closes, however that comes (`guard.py`).
Restarts are another module's.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import httpx

from sluice.backend.child import ChildProcess
from sluice.backend.errors import VllmProcessError, WrongAnswerError
from sluice.backend.vllm import guard

_POLL_S = 0.25
_ANSWER_TIMEOUT_S = 300.0
_STATUS = re.compile(r"vllm ended with exit status (-?\d+)$")


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
        guarded = (sys.executable, "-I", guard.__file__, str(drain_s), *command)
        self._child = ChildProcess(guarded, environment=environment, on_line=self._on_line)
        self._start_timeout_s = start_timeout_s
        self._drain_s = drain_s
        self._on_progress = on_progress
        self._is_ready = False
        self._status: int | None = None

    @property
    def pid(self) -> int | None:
        """Id of the group and of the guard that leads it; None before the start."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._child.is_running

    @property
    def log_tail(self) -> str:
        """The last lines that it wrote, for error messages."""
        return self._child.log_tail

    async def start(self, *, check_prompt: str = "", check_answer: str = "") -> None:
        """Start it, and wait until it is healthy and has answered the question (where there is one) rightly.

        Raises:
            VllmProcessError: it ended, or is not ready in time. It is not left running, as with the next.
            WrongAnswerError: it answers wrongly.
        """
        if self.pid is not None:
            raise VllmProcessError("vLLM has already been started")
        await self._child.start()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                if not await self._child.answers(f"{self.url}/health", poll_s=_POLL_S):
                    status = await self.wait()
                    raise VllmProcessError(self._message(f"ended with exit status {status} before it was ready"))
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
        status = await self._child.wait()
        return self._status if self._status is not None else status

    async def stop(self) -> None:
        """Ask it to end: it takes no more requests, and those in progress get their time. Idempotent."""
        await self._child.stop(self._drain_s + 2 * guard.GRACE_S)  # the guard asks vLLM, and kills it before that

    async def kill(self) -> None:
        """End the whole group at once. Idempotent."""
        await self._child.kill()

    def _on_line(self, line: str) -> None:
        """Note its exit status; pass its lines on while it starts."""
        if match := _STATUS.search(line):
            self._status = int(match[1])
        if self._on_progress is not None and not self._is_ready:
            self._on_progress(line)

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
        return f"vLLM {what}; its last lines:\n{self.log_tail}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:25]} … {text[-25:]}"
