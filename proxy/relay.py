"""Hands an upstream's answer to the client, bytes as they arrive, and hangs up on the upstream when the client goes.

Nothing is buffered and nothing re-coded. After the first byte the status is fixed: a stream of events that breaks off
ends with one error event, any other body is cut, so that the client sees that it is not whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.types import Receive, Send

from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import NO_BODY, Header, find, to_client
from sluice.proxy.receive import ClientGoneError
from sluice.proxy.upstreams import Answer
from sluice.proxy.wire.render_errors import chat_event

T = TypeVar("T")


@dataclass(slots=True)
class Relayed:
    """What became of an answer."""

    status: int
    """The upstream's status, which the client was sent."""
    num_bytes: int = 0
    """Bytes of the answer's body."""
    error: UpstreamError | None = None
    """Why the body broke off; None where it came whole."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run something for a client whose request has been read; cancel it as soon as the client hangs up.

    Raises:
        ClientGoneError: it hung up.
    """
    task = asyncio.current_task()
    assert task is not None
    num_cancelled = task.cancelling()
    watch = _Watch(receive, task)
    try:
        return await work
    except asyncio.CancelledError:
        # Told apart from being cancelled by somebody else as `asyncio.timeout` does it.
        if watch.is_gone and task.uncancel() <= num_cancelled:
            raise ClientGoneError from None
        raise
    finally:
        watch.end()


class _Watch:
    """Waits for the client to hang up, and then cancels a task, beside which it runs."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any]) -> None:
        self.is_gone = False
        self._receive = receive
        self._task: asyncio.Task[Any] | None = task
        self._watching = asyncio.create_task(self._watch())

    def end(self) -> None:
        """Cancel nothing any more."""
        self._task = None
        self._watching.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # The server reports an answer that is complete as a hang-up, too; the last byte has then been sent, and the
        # task ends without waiting again.
        await asyncio.sleep(0)
        if self._task is not None:
            self.is_gone = True
            self._task.cancel()


async def relay(
    answer: Answer,
    send: Send,
    ours: Sequence[Header] = (),
    *,
    tap: Callable[[bytes], None] | None = None,
    render_event: Callable[[Exception], bytes] = chat_event,
) -> Relayed:
    """Send an answer on, head first, and close it.

    Args:
        answer: the upstream's; its body not yet read.
        send: ASGI's send.
        ours: headers to add.
        tap: shown each piece of the body once it is on its way. It must neither raise nor wait.
        render_event: puts an exception into the form of the stream's events.
    """
    events = _is_plain_event_stream(answer.headers)
    has_length = not events and answer.status not in NO_BODY
    relayed = Relayed(answer.status)
    try:
        headers = [*to_client(answer.headers, has_length=has_length), *ours]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        tail = b""
        try:
            while data := await answer.read():
                relayed.num_bytes += len(data)
                tail = (tail + data)[-2:] if len(data) < 2 else data[-2:]
                await send({"type": "http.response.body", "body": data, "more_body": True})
                if tap is not None:
                    tap(data)
        except UpstreamError as error:
            relayed.error = error
            if not events:
                return relayed  # without its last part: the server cuts the connection
            await send({"type": "http.response.body", "body": _parted(tail) + render_event(error), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return relayed
    finally:
        answer.close()


def _is_plain_event_stream(headers: Sequence[Header]) -> bool:
    """Whether an event can be put at the end of the body: it is a stream of events, and not compressed."""
    lowered = [(key.lower(), value) for key, value in headers]
    content_type, encoding = find(lowered, b"content-type") or "", find(lowered, b"content-encoding")
    return content_type.lower().startswith("text/event-stream") and encoding in (None, "identity")


def _parted(tail: bytes) -> bytes:
    """What has to stand between the last bytes sent and an event: one cut off in its middle is ended first."""
    return b"" if tail in (b"", b"\n\n") else b"\n\n"
