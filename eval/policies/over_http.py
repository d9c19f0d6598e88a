"""A proxy, judged over HTTP by what reaches a recording upstream. It is given what an agent would send."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import aiohttp

from sluice.eval.child import ServerProcess
from sluice.eval.errors import ReplayError, told
from sluice.eval.policies.base import Forwarded, Hindsight, Request
from sluice.eval.recorder import MODEL, Recorder, forwarded_messages

TIMEOUT_S = 120.0
ERROR_CHARS = 500


class OverHttp:
    """A running proxy whose upstream is a recorder; enter it to open the connection.

    Args:
        url: the proxy's origin, without `/v1`.
        recorder: what it forwards to.
        name: of the policy.
        headers: sent with every request, beside a key of its own.
        model: named in the requests.
        is_streamed: whether answers are asked for as events.
        process: the proxy's process, where it is ours.
        restart_every: kill and restart that process after so many turns; None: never.
        is_lenient: whether a request that fails is counted, as one that goes past the proxy, and does not end the run.
    """

    def __init__(
        self,
        url: str,
        recorder: Recorder,
        *,
        name: str,
        headers: Mapping[str, str] | None = None,
        model: str = MODEL,
        is_streamed: bool = False,
        process: ServerProcess | None = None,
        restart_every: int | None = None,
        is_lenient: bool = False,
    ) -> None:
        self.name = name
        self.num_restarts = 0
        self._url = url.rstrip("/").removesuffix("/v1")
        self._recorder = recorder
        self._model = model
        self._is_streamed = is_streamed
        self._process = process
        self._restart_every = restart_every
        self._is_lenient = is_lenient
        self._num_turns = 0
        # A key of its own for each run: nothing that a store holds of an earlier run is found again.
        self._headers = {
            "authorization": f"Bearer sk-replay-{secrets.token_hex(16)}",
            "content-type": "application/json",
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> OverHttp:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    def open(self, hindsight: Hindsight) -> OverHttp:
        """See `Policy`; of hindsight nothing is used, and the proxy keeps conversations apart by itself."""
        return self

    async def forward(self, request: Request) -> Forwarded:
        """See `Conversation`.

        Raises:
            ReplayError: the proxy did not answer with success, or did not ask its upstream.
        """
        if self._process and self._restart_every and self._num_turns and self._num_turns % self._restart_every == 0:
            await self._process.restart()
            self.num_restarts += 1
        self._num_turns += 1
        self._recorder.take()
        try:
            return await self._forward(request)
        except _RequestError as error:
            if not self._is_lenient:
                raise
            return Forwarded(request.messages, bypass=error.reason)

    async def _forward(self, request: Request) -> Forwarded:
        assert self._session is not None
        begun_s = time.perf_counter()
        try:
            async with self._session.post(
                f"{self._url}/v1/chat/completions", data=self._body(request.messages)
            ) as answer:
                text = await answer.read()
                status, headers = answer.status, answer.headers
        except (aiohttp.ClientError, TimeoutError) as error:
            message = f"the proxy at {self._url} did not answer: {told(error)}{self._log()}"
            raise _RequestError(message, "no answer") from error
        round_trip_ms = (time.perf_counter() - begun_s) * 1000
        if status != 200:
            said = text[:ERROR_CHARS].decode(errors="replace")
            message = f"the proxy at {self._url} answered {status}: {said}{self._log()}"
            raise _RequestError(message, f"answered {status}")
        bodies = self._recorder.take()
        if not bodies:
            where = self._recorder.url
            message = f"the proxy at {self._url} answered, but nothing reached the recorder at {where}"
            raise _RequestError(message, "nothing forwarded")
        try:
            forwarded = forwarded_messages(bodies[-1])
        except ReplayError as error:
            raise _RequestError(str(error), "forwarded no chat request") from error
        overhead = headers.get("x-sluice-overhead-ms")
        came, went = headers.get("x-sluice-tokens-in"), headers.get("x-sluice-tokens-out")
        return Forwarded(
            forwarded,
            overhead_ms=float(overhead) if overhead else None,
            round_trip_ms=round_trip_ms,
            num_tokens=(int(came), int(went)) if came and went else None,
            num_further_requests=len(bodies) - 1,
            bypass=headers.get("x-sluice-bypass"),
        )

    def _body(self, messages: Sequence[bytes]) -> bytes:
        head = {"model": self._model, "max_tokens": 1, "stream": self._is_streamed}
        return json.dumps(head).encode()[:-1] + b', "messages": [' + b",".join(messages) + b"]}"

    def _log(self) -> str:
        return f"\nlog of the proxy:\n{self._process.log_tail()}" if self._process else ""


class _RequestError(ReplayError):
    """One request failed."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
