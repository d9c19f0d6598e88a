"""Sends a workload to one server and takes the times: to the first byte of an answer, and of the whole.

A client of its own, on HTTP's parser: it shares a core with the upstream, and must not be what is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from sluice.eval.bench.cpu import cpu_s
from sluice.eval.bench.stage import PACE_HEADER
from sluice.eval.bench.workload import Workload
from sluice.eval.errors import ReplayError

TIMEOUT_S = 120.0
_END = b"data: [DONE]\n\n"
_IDLE_WAIT_S = 0.1
_IDLE_CPU_S = 0.002
"""A server that uses less than this in `_IDLE_WAIT_S` is idle."""
_MAX_IDLE_WAITS = 100
QUIET_S = 0.7
"""How long a server may seem idle before it does what is left to do: our meter gathers turns for half a second."""


@dataclass(slots=True)
class Taken:
    """What one server needed for one workload."""

    first_ms: list[float] = field(default_factory=list)
    """Time to the first byte of each answer's body, in milliseconds."""
    cpu_ms: float | None = None
    """Processor time of the server a request, in milliseconds; None where the process is not ours."""
    wall_s: float = 0.0
    num_requests: int = 0


async def send_all(url: str, workload: Workload, headers: Mapping[str, str], pid: int | None) -> Taken:
    """Send a workload.

    Args:
        url: origin of the server.
        workload: what to send.
        headers: of each request.
        pid: the server's process, whose processor time is taken; its children count.

    Raises:
        ReplayError: the server is not there, or an answer was not whole.
    """
    taken = Taken()
    parts = urlsplit(url)
    sent = {
        "host": parts.netloc,
        "content-type": "application/json",
        PACE_HEADER: f"{workload.pace_ms:g}",
        **headers,
    }
    head = "POST /v1/chat/completions HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    connections = [await _connected(url) for _ in range(workload.num_clients)]

    async def send(connection: _Connection, data: bytes) -> float:
        request = f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await connection.ask(request) * 1000
        except (TimeoutError, OSError, httptools.HttpParserError) as error:
            raise ReplayError(f"{url} gave no whole answer: {error or 'none in time'}") from error

    async def client(connection: _Connection, bodies: list[bytes]) -> None:
        while bodies:
            taken.first_ms.append(await send(connection, bodies.pop()))

    async def everyone(bodies: list[bytes]) -> None:
        bodies.reverse()
        await asyncio.gather(*(client(connection, bodies) for connection in connections))

    try:
        await everyone(workload.bodies[: workload.num_warm])
        taken.first_ms.clear()
        await _until_idle(pid)
        before_s, begun_s = cpu_s(pid), time.perf_counter()
        await everyone(workload.bodies[workload.num_warm :])
        taken.wall_s = time.perf_counter() - begun_s
        await _until_idle(pid)  # what a server does behind the requests' backs is work for them, too
        after_s = cpu_s(pid)
    finally:
        for connection in connections:
            connection.close()
    taken.num_requests = len(workload.bodies) - workload.num_warm
    if before_s is not None and after_s is not None:
        taken.cpu_ms = (after_s - before_s) * 1000 / taken.num_requests
    return taken


async def check_reached(url: str) -> None:
    """See that a server is there.

    Raises:
        ReplayError: it is not.
    """
    (await _connected(url)).close()


async def _connected(url: str) -> _Connection:
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            loop = asyncio.get_running_loop()
            return (await loop.create_connection(_Connection, parts.hostname or "", parts.port or 80))[1]
    except OSError as error:  # TimeoutError is one
        raise ReplayError(f"{url} cannot be reached: {error or 'not in time'}") from None


async def _until_idle(pid: int | None) -> None:
    """Wait until a server has done all that it was given to do: some of it goes on behind the requests' backs."""
    if pid is not None:
        await asyncio.sleep(QUIET_S)
    for _ in range(_MAX_IDLE_WAITS):
        before_s = cpu_s(pid)
        await asyncio.sleep(_IDLE_WAIT_S)
        after_s = cpu_s(pid)
        if before_s is None or after_s is None or after_s - before_s < _IDLE_CPU_S:
            return


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._answered: asyncio.Future[float] | None = None

    async def ask(self, request: bytes) -> float:
        """Send a request and read the answer to its end.

        Returns:
            Time to the first byte of its body, in seconds.

        Raises:
            OSError: it is not whole, or another than what was asked for.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._first_s, self._tail = 0.0, b""
        self._answered = asyncio.get_running_loop().create_future()
        begun_s = time.perf_counter()
        self._transport.write(request)
        return await self._answered - begun_s

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionResetError("it hung up"))

    def on_body(self, data: bytes) -> None:
        """Take a piece of the answer's body."""
        if not self._first_s:
            self._first_s = time.perf_counter()
        self._tail = (self._tail + data)[-200:]

    def on_message_complete(self) -> None:
        """Check that the answer is what was asked for."""
        status = self._parser.get_status_code()
        is_whole = status == 200 and self._tail.endswith(_END)
        self._end(None if is_whole else ConnectionError(f"status {status}, {self._tail!r}"))

    def _end(self, error: Exception | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(self._first_s)
        else:
            self._answered.set_exception(error)
