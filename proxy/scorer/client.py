"""Asks a scorer in another process. One that is lost or slow is not asked until it says that it is well again.

Requests never pay for finding that out: its health is asked behind their backs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Protocol

import aiohttp

from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, Window
from sluice.proxy.log import fields, logger, where

MAX_LATE = 3
"""Answers in a row that come too late before a scorer counts as slow."""
_MAX_AT_ONCE = 256
"""Requests under way at once; more are not sent."""
_MAX_ANSWER_BYTES = 64 * 2**20
_HEALTH_TIMEOUT_S = 1.0
_RETRY_S, _MAX_RETRY_S = 0.5, 30.0
"""Between two looks at the health of one that is not asked: the longer, the more often it was lost again."""


class Wire(Protocol):
    """What is said to a scorer, and how its answers are read."""

    path: str
    """Where windows are posted."""
    health_path: str
    content_type: str

    def body(self, windows: Sequence[Window], within_s: float) -> bytes:
        """Write a request."""
        ...

    def read(self, answer: bytes, windows: Sequence[Window]) -> Sequence[Floats | NotScoredError]:
        """Read an answer. May take time.

        Raises:
            ValueError: it is no answer to these windows, or another model's.
        """
        ...

    def check_health(self, answer: bytes) -> None:
        """Read what is said of its health with status 200.

        Raises:
            ValueError: it serves another model.
        """
        ...


class RemoteScores:
    """Scores windows in another process (see `LineScores`).

    Args:
        origin: of it, such as `http://127.0.0.1:8792`.
        wire: that it speaks.

    Attributes:
        is_admitted: whether it is asked.
    """

    def __init__(self, origin: str, wire: Wire) -> None:
        self._origin = origin
        self._wire = wire
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self.is_admitted = False
        self._why_not = Fallback.LOADING
        self._num_late = 0
        self._retry_s = _RETRY_S
        self._num_running = 0
        self._lock = threading.Lock()
        self._said = ""  # what was said last of why it is not asked

    def start(self) -> None:
        """See `LineScores`. It is asked from the first time on that it says that it is well."""
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MAX_AT_ONCE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_HEALTH_TIMEOUT_S),
        )
        self._keeper = asyncio.create_task(self._keep_up(), name="sluice-scorer-health")

    def submit(self, windows: Sequence[Window], within_s: float) -> Sequence[Future[Floats]]:
        """See `LineScores`."""
        futures: list[Future[Floats]] = [Future() for _ in windows]
        reason = self._why_not
        with self._lock:
            is_taken = self.is_admitted and self._num_running < _MAX_AT_ONCE
            self._num_running += is_taken
            if self.is_admitted:
                reason = Fallback.BUSY
        if not is_taken or self._loop is None:
            _settle(futures, [NotScoredError(reason)] * len(futures))
            return futures
        asking = self._ask(self._wire.body(windows, within_s), windows, futures, within_s)
        try:
            asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError:  # the loop has ended
            asking.close()
            _settle(futures, [NotScoredError(Fallback.DOWN)] * len(futures))
        return futures

    async def aclose(self) -> None:
        """See `LineScores`."""
        self.is_admitted, self._why_not = False, Fallback.DOWN
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self, body: bytes, windows: Sequence[Window], futures: Sequence[Future[Floats]], within_s: float
    ) -> None:
        found: Sequence[Floats | NotScoredError] = [NotScoredError(Fallback.ERROR)] * len(futures)
        try:
            async with asyncio.timeout(within_s):
                answer = await self._post(body)
            found = await asyncio.to_thread(self._wire.read, answer, windows)
            self._num_late = 0
            self._retry_s = _RETRY_S
        except TimeoutError:
            found = [NotScoredError(Fallback.DEADLINE)] * len(futures)
            self._num_late += 1
            if self._num_late >= MAX_LATE:
                self._lose(Fallback.DOWN, f"{self._num_late} answers in a row came too late")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            found = [NotScoredError(Fallback.DOWN)] * len(futures)
            self._lose(Fallback.DOWN, str(error) or where(error))
        except Exception as error:  # whatever it was, somebody waits
            logger.error(fields("scorer_failed", error=where(error)))
        finally:
            with self._lock:
                self._num_running -= 1
            _settle(futures, found)

    async def _post(self, body: bytes) -> bytes:
        assert self._session is not None
        headers = {"content-type": self._wire.content_type}
        async with self._session.post(self._origin + self._wire.path, data=body, headers=headers) as response:
            return await _whole(response)

    def _lose(self, reason: Fallback, detail: str) -> None:
        """Stop asking."""
        if self.is_admitted:
            logger.warning(fields("scorer_lost", origin=self._origin, reason=detail))
        self.is_admitted, self._why_not, self._num_late = False, reason, 0
        self._lost.set()

    async def _keep_up(self) -> None:
        """Ask for its health as long as it is not asked for scores."""
        while True:
            problem = await self._problem()
            if problem is None:
                logger.info(fields("scorer_ready", origin=self._origin))
                self._lost.clear()
                self.is_admitted = True
                await self._lost.wait()
            elif problem and problem != self._said:
                logger.warning(fields("scorer_not_ready", origin=self._origin, reason=problem))
            self._said = problem or ""
            await asyncio.sleep(self._retry_s)
            if problem is None:  # it was well, and was lost again
                self._retry_s = min(2 * self._retry_s, _MAX_RETRY_S)

    async def _problem(self) -> str | None:
        """Why it cannot be asked; None where it can."""
        assert self._session is not None
        try:
            async with (
                asyncio.timeout(_HEALTH_TIMEOUT_S),
                self._session.get(self._origin + self._wire.health_path) as response,
            ):
                self._wire.check_health(await _whole(response))
        except TimeoutError:
            return f"no answer within {_HEALTH_TIMEOUT_S:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or where(error)
        return None


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:
        raise ValueError(f"status {response.status}")
    answer = bytearray()
    async for piece in response.content.iter_any():
        answer += piece
        if len(answer) > _MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def _settle(futures: Sequence[Future[Floats]], found: Sequence[Floats | NotScoredError]) -> None:
    for future, one in zip(futures, found, strict=True):
        try:
            if isinstance(one, NotScoredError):
                future.set_exception(one)
            else:
                future.set_result(one)
        except InvalidStateError:  # nobody waits any more
            continue
