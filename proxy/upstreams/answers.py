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


async def hold(answer: Answer, *, max_bytes: int = _MAX_HELD_BYTES) -> HeldAnswer:
    """Read a short answer into memory and release its connection.

    One that is long, slow or broken off becomes an answer without a body, and is not whole.
    """
    parts: list[bytes] = []
    headers = [(name, value) for name, value in answer.headers if name.lower() not in _OF_BODY]
    held = HeldAnswer(answer.status, [*headers, (b"content-length", b"0")], b"")
    held.is_whole = False
    num_bytes = 0
    try:
        async with asyncio.timeout(_HOLD_TIMEOUT_S):
            while part := await answer.read():
                parts.append(part)
                num_bytes += len(part)
                if num_bytes > max_bytes:
                    return held
    except (UpstreamError, TimeoutError):
        return held
    finally:
        answer.close()
    headers = [(name, value) for name, value in answer.headers if name.lower() != b"transfer-encoding"]
    return HeldAnswer(answer.status, headers, b"".join(parts))


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
