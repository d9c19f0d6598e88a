"""Answers that are held in memory, and answers that say where they came from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header
from sluice.proxy.upstreams.types import Answer

_MAX_HELD_BYTES = 64 * 1024
_HOLD_TIMEOUT_S = 2.0
_OF_BODY = (b"content-length", b"content-encoding", b"transfer-encoding")


class HeldAnswer:
    """An answer whose body is in memory; see `Answer`."""

    is_whole = True
    """Whether it is all that the upstream said; else its head is all that is left of it."""

    def __init__(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._is_read = False

    async def read(self) -> bytes:
        """See `Answer`."""
        rest = b"" if self._is_read else self.body
        self._is_read = True
        return rest

    def close(self) -> None:
        """See `Answer`."""


class BegunAnswer:
    """An answer of which a part has been read, which comes again before the rest; see `Answer`.

    Args:
        answer: what is left of it.
        part: what has been read.
        reading: a read that is under way; None: there is none.
    """

    def __init__(self, answer: Answer, part: bytes, reading: asyncio.Task[bytes] | None = None) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._part = part
        self._reading = reading

    async def read(self) -> bytes:
        """See `Answer`."""
        if self._part:
            part, self._part = self._part, b""
            return part
        if self._reading is not None:
            data = await self._reading
            self._reading = None
            return data
        return await self._answer.read()

    def close(self) -> None:
        """See `Answer`."""
        reading, self._reading = self._reading, None
        if reading is not None and not reading.cancel() and not reading.cancelled():
            reading.exception()  # nobody is left to be told
        self._answer.close()


async def hold_or_begin(answer: Answer, *, max_bytes: int = _MAX_HELD_BYTES) -> HeldAnswer | BegunAnswer:
    """Read a short answer into memory and release its connection; one that is long or slow is left to come on.

    One that is broken off becomes an answer without a body, and is not whole.
    """
    loop = asyncio.get_running_loop()
    due_s = loop.time() + _HOLD_TIMEOUT_S
    parts: list[bytes] = []
    num_bytes = 0
    while num_bytes <= max_bytes:
        # A read that takes too long is not broken off: what it has got would be lost with it.
        reading = asyncio.create_task(answer.read())
        try:
            await asyncio.wait((reading,), timeout=max(0.0, due_s - loop.time()))
            if not reading.done():
                return BegunAnswer(answer, b"".join(parts), reading)
            part = reading.result()
        except UpstreamError:
            answer.close()
            return _bodiless(answer)
        except BaseException:
            reading.cancel()
            answer.close()
            raise
        if not part:
            answer.close()
            headers = [(name, value) for name, value in answer.headers if name.lower() != b"transfer-encoding"]
            return HeldAnswer(answer.status, headers, b"".join(parts))
        parts.append(part)
        num_bytes += len(part)
    return BegunAnswer(answer, b"".join(parts))


async def hold(answer: Answer, *, max_bytes: int = _MAX_HELD_BYTES) -> HeldAnswer:
    """Read a short answer into memory and release its connection.

    One that is long, slow or broken off becomes an answer without a body, and is not whole.
    """
    held = await hold_or_begin(answer, max_bytes=max_bytes)
    if isinstance(held, HeldAnswer):
        return held
    held.close()
    return _bodiless(held)


def _bodiless(answer: Answer) -> HeldAnswer:
    headers = [(name, value) for name, value in answer.headers if name.lower() not in _OF_BODY]
    held = HeldAnswer(answer.status, [*headers, (b"content-length", b"0")], b"")
    held.is_whole = False
    return held


class RoutedAnswer:
    """An answer with the name of the upstream that gave it; see `Answer`."""

    def __init__(self, answer: Answer, upstream: str, num_retries: int) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.read = answer.read
        self.close = answer.close
        self.upstream = upstream
        """Name of the upstream that answered."""
        self.num_retries = num_retries
        """How often the request was sent again, to this upstream or to another."""

    @property
    def sluice_headers(self) -> list[Header]:
        """Headers that tell the client where its answer came from."""
        headers = [(b"x-sluice-upstream", self.upstream.encode())]
        if self.num_retries:
            headers.append((b"x-sluice-retries", b"%d" % self.num_retries))
        return headers
