"""Writes requests down, content and all, where `--record DIR` asks for it: to be replayed by `sluice eval`.

A bare ASGI wrapper: it sees what clients send and are answered, and nothing of how that came about. One JSON a line:
`format`, `time` (seconds), `wire`, `request` (the client's body), `status`, `usage` (as the upstream told it).
Headers, and with them credentials, are not written; files are for their owner's eyes (mode 0600). A fault costs a line,
never a request.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sluice.proxy.encoding import unpack
from sluice.proxy.errors import ConfigError
from sluice.proxy.headers import find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.wire.types import WireName
from sluice.proxy.wire.wires import WIRES

FORMAT = "sluice-record-1"
_WIRES = {wire.path: name for name, wire in WIRES.items() if name is not WireName.COMPLETIONS}
"""Routes that are recorded, and their wires."""
MAX_ANSWER_BYTES = 8 * 2**20
"""Answers that are longer are passed on as ever, but their usage is not read."""


def record_file(folder: Path) -> Path:
    """Make the folder, where it is not there, and name a file in it for this process.

    Raises:
        ConfigError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"bad value for record: {str(folder)!r}: {error.strerror}; name a folder of yours") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"bad value for record: {str(folder)!r}: the folder cannot be written")
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl"


class RecordingMiddleware:
    """Wraps the application.

    Args:
        app: the application.
        file: what is appended to.
        max_body_bytes: larger requests are not recorded (nor served).
    """

    def __init__(self, app: ASGIApp, *, file: Path, max_body_bytes: int) -> None:
        self._app = app
        self._file = file
        self._max_body_bytes = max_body_bytes
        self._lock = threading.Lock()
        self._num_lost = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and write it down once it is answered."""
        wire = _WIRES.get(scope.get("path", "")) if scope["type"] == "http" and scope["method"] == "POST" else None
        if wire is None:
            await self._app(scope, receive, send)
            return
        body, answer, status, time_s = _Bytes(self._max_body_bytes), _Bytes(MAX_ANSWER_BYTES), 0, time.time()

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body.add(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                answer.add(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        finally:
            encoding = find(scope["headers"], b"content-encoding") or ""
            await asyncio.to_thread(self._write, time_s, wire, body, encoding, answer, status)

    def _write(self, time_s: float, wire: WireName, body: _Bytes, encoding: str, answer: _Bytes, status: int) -> None:
        try:
            if not body.is_whole:
                return
            head = {"format": FORMAT, "time": round(time_s, 3), "wire": wire.value}
            request = json.loads(
                unpack(body.get(), encoding, self._max_body_bytes)
            )  # read to be sure that it is one value, on one line
            line = {**head, "request": request, "status": status, "usage": usage_of(answer.get())}
            self._append(json.dumps(line).encode() + b"\n")
        except Exception as error:  # what is not written down must not cost the request
            logger.error(fields("record_failed", error=where(error)))

    def _append(self, line: bytes) -> None:
        """Write a line or nothing of it; say once that there is no room, and once that there is again."""
        with self._lock:
            try:
                append_whole(self._file, line)
            except OSError as error:
                if not self._num_lost:
                    advice = "requests are served and not written down: make room, or record elsewhere"
                    logger.error(fields("record_failed", file=self._file, reason=error.strerror, advice=advice))
                self._num_lost += 1
                return
            if self._num_lost:
                logger.warning(fields("record_goes_on", file=self._file, num_not_written=self._num_lost))
                self._num_lost = 0


def append_whole(path: Path, line: bytes) -> None:
    """Append a line to a file that nobody else writes; where there is no room for all of it, nothing of it stays.

    Raises:
        OSError: it cannot be written.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        end = os.fstat(file).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            os.ftruncate(file, end)  # half a line would make the next one unreadable as well
            raise
    finally:
        os.close(file)


def usage_of(answer: bytes) -> dict[str, Any] | None:
    """What an answer says it used, whole or as events, in the provider's own words; None where it does not say.

    Of events that say it in parts (Anthropic's), the later value of each count stands.
    """
    found: dict[str, Any] = {}
    for value in _values(answer):
        holders = (value, value.get("message"), value.get("response"))
        for holder in holders:
            usage = holder.get("usage") if isinstance(holder, dict) else None
            if isinstance(usage, dict):
                found |= {key: count for key, count in usage.items() if count is not None}
    return found or None


def _values(answer: bytes) -> Iterator[dict[str, Any]]:
    is_events = not answer.lstrip().startswith(b"{")
    parts = (line[5:] for line in answer.splitlines() if line.startswith(b"data:")) if is_events else (answer,)
    for part in parts:
        if b'"usage"' in part:
            try:
                value = json.loads(part)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


class _Bytes:
    """Bytes as they come, up to a bound; beyond it nothing is kept."""

    def __init__(self, max_bytes: int) -> None:
        self.is_whole = True
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._num_bytes = 0

    def add(self, part: bytes) -> None:
        self._num_bytes += len(part)
        if self._num_bytes > self._max_bytes:
            self.is_whole = False
            self._parts.clear()
        else:
            self._parts.append(part)

    def get(self) -> bytes:
        return b"".join(self._parts) if self.is_whole else b""
