"""The servers of a benchmark, each a process of its own: an upstream that streams, and what is measured beside us.

Run as `python -m sluice.eval.bench.stage upstream|passthrough|relay PORT [ORIGIN]`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

T = TypeVar("T")

NUM_EVENTS = 64
"""Events of an answer, the last one beside them."""
PACE_HEADER = "x-bench-pace-ms"
"""How long the upstream waits before each event, in milliseconds; none: all at once."""

_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"a few words of an answer "},"finish_reason":null}]}\n\n'
)
_DONE = b"data: [DONE]\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Upstream(asyncio.Protocol):
    """Reads requests and answers them with events. It writes HTTP itself, so that it is never what is measured."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._held = bytearray()
        self._num_wanted = 0
        """Bytes of the request, its head included; 0 until that is there."""

    def data_received(self, data: bytes) -> None:
        self._held += data
        if not self._num_wanted:
            end = self._held.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            self._num_wanted = end + int(_value(bytes(self._held[:end]), "content-length"))
        if len(self._held) < self._num_wanted:
            return
        request = bytes(self._held[:4096])
        self._held.clear()
        self._num_wanted = 0
        if request.startswith(b"GET"):
            self._transport.write(_EMPTY)
            return
        self._transport.write(_HEAD)
        pace_s = float(_value(request, PACE_HEADER)) / 1000
        if pace_s:
            asyncio.get_running_loop().call_later(pace_s, self._pace, NUM_EVENTS, pace_s)
        else:
            self._transport.write(_chunk(_EVENT) * NUM_EVENTS + _chunk(_DONE) + _chunk(b""))

    def _pace(self, num_left: int, pace_s: float) -> None:
        if num_left:
            self._transport.write(_chunk(_EVENT))
            asyncio.get_running_loop().call_later(pace_s, self._pace, num_left - 1, pace_s)
        else:
            self._transport.write(_chunk(_DONE) + _chunk(b""))


class _Relay(asyncio.Protocol):
    """Hands bytes on to a connection of its own and back, unread: the least that any relay does, a read and a write.

    Args:
        host: of the upstream.
        port: of the upstream.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._held: list[bytes] = []
        self._other: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._connecting = asyncio.ensure_future(self._connect())

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._held.append(data)
        else:
            self._other.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._connecting.cancel()
        if self._other is not None:
            self._other.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._other, _ = await loop.create_connection(lambda: _Back(self._transport), *self._address)
        self._other.writelines(self._held)


class _Back(asyncio.Protocol):
    def __init__(self, client: asyncio.WriteTransport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.close()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _value(head: bytes, name: str) -> str:
    """The value of a header; `0` where it is not there."""
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name.encode():
            return value.strip().decode()
    return "0"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run something on the fast event loop, where the platform has it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def _serve(make: Callable[[], asyncio.Protocol], port: int) -> None:
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main(role: str, port: str, origin: str = "") -> None:
    """Serve one of the roles."""
    if role == "passthrough":
        import uvicorn

        from sluice.eval.bench.passthrough import passthrough

        # As one runs it: `uvicorn[standard]`, so that loop and parser are the fast ones.
        uvicorn.run(passthrough(origin), host="127.0.0.1", port=int(port), log_level="error", access_log=False)
        return
    parts = urlsplit(origin)
    make = _Upstream if role == "upstream" else lambda: _Relay(parts.hostname or "", parts.port or 80)
    run(_serve(make, int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
