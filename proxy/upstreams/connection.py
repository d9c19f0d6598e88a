"""One HTTP/1.1 connection to an upstream: a request out, its answer in, and whether another may follow.

On asyncio's transports and llhttp (httptools). A client library puts several coroutines, timers and copies around each
piece of an answer; here a piece costs its parsing and one wake-up. Knows no pool and no other connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from sluice.proxy.errors import (
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamReadTimeoutError,
    UpstreamWriteTimeoutError,
)
from sluice.proxy.headers import NO_BODY, Header
from sluice.proxy.upstreams.http_answer import HttpAnswer
from sluice.proxy.upstreams.limits import HttpLimits

_PIECE_BYTES = 128 * 1024
"""So much of a request is handed to the transport at once, so that it shows whether the upstream takes it."""
_MAX_HEAD_BYTES = 64 * 1024


class Connection(asyncio.Protocol):
    """A connection, for one request at a time.

    Args:
        origin: of the upstream, for what is said of errors.
        limits: how long each step may take.
        on_idle: called when an answer is whole and the connection may be used again.
        on_lost: called when it is closed.
    """

    def __init__(
        self,
        origin: str,
        limits: HttpLimits,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.is_reused = False
        """Whether it has been used before."""
        self.idle_since_s = 0.0
        """When its last answer was whole, by the loop's clock."""
        self._origin = origin
        self._limits = limits
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        # Servers in the field write chunk sizes with spaces and lines without CR; other clients read them, too.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._transport: asyncio.Transport | None = None
        self._answer: HttpAnswer | None = None
        self._head: asyncio.Future[None] | None = None
        """Done once the answer's head is there."""
        self._headers: list[Header] = []
        self._parts: list[bytes] = []
        """Pieces of the body that the parser has just found."""
        self._unsent = memoryview(b"")
        self._is_full = False
        """Whether the transport takes no more for now."""
        self._is_paused = False
        self._is_head_request = False
        self._num_head_bytes = 0
        self._is_whole = False
        self._is_kept = False
        """Whether the connection may be used again once the answer is whole."""
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at_s = 0.0
        self._taken_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent over it."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, head: bytes, body: bytes, *, is_head_request: bool = False) -> HttpAnswer:
        """Send a request and return when the answer's head is there; cancel it to hang up.

        What is still unsent by then goes on being sent.

        Args:
            head: of the request, as it is sent.
            body: may be empty.
            is_head_request: whether the method is HEAD, so that the answer has no body.

        Raises:
            UpstreamError: no answer.
        """
        assert self._transport is not None
        assert self._answer is None, "one request at a time"
        answer = self._answer = HttpAnswer(self)
        waiter = self._head = self._loop.create_future()
        self._is_head_request = is_head_request
        self._is_whole = False
        self._num_head_bytes = 0
        self._heard_at_s = self._taken_at_s = self._loop.time()
        self._watch = self._loop.call_later(
            min(self._limits.read_timeout_s, self._limits.write_timeout_s), self._check_time
        )
        if len(body) <= _PIECE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._send_on()
        try:
            await waiter
        except BaseException:
            # An answer that was whole at once has let go of the connection, which may be another's by now.
            if self._answer is answer:
                self._drop()
            raise
        return answer

    def abort(self) -> None:
        """Hang up, whatever is under way; who waits for it is told."""
        if self._answer is not None:
            self._fail(UpstreamError(f"the connection to upstream {self._origin} was closed here"))
        else:
            self._drop()

    def pause(self) -> None:
        """Take no more from the upstream, until `resume`."""
        if not self._is_paused and self.is_open:
            assert self._transport is not None
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading; the silence until now was ours."""
        if self._is_paused:
            self._is_paused = False
            self._heard_at_s = self._loop.time()
            if self.is_open:
                assert self._transport is not None
                self._transport.resume_reading()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        answer = self._answer
        if answer is None:
            self.abort()  # nothing was asked: it belongs to no request
            return
        self._heard_at_s = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_whole:
                # The parser's text may quote the answer, so it is named by its class alone.
                kind = type(error.__context__ or error).__name__
                self._hand_on(answer)
                self._fail(UpstreamError(f"upstream {self._origin} gave no valid HTTP answer ({kind})"))
                return
            self._is_kept = False
        self._hand_on(answer)
        if self._is_whole:
            self._end()
            return
        if answer.status == 0:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > _MAX_HEAD_BYTES:
                self._fail(UpstreamError(f"upstream {self._origin} gave no valid HTTP answer (its head is too long)"))

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._is_full = True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._is_full = False
        self._taken_at_s = self._loop.time()
        self._send_on()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        answer = self._answer
        if answer is not None:
            if error is None and answer.status and _ends_with_connection(answer):
                self._let_go()
                self._answer = None
                answer.end()
            else:
                lost = UpstreamDisconnectedError(f"upstream {self._origin} hung up before its answer was whole")
                lost.__cause__ = error
                self._fail(lost)
        self._on_lost(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Take note of what comes behind the answer: the connection is then not to be trusted."""
        self._is_kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind the body are not asked for."""
        assert self._answer is not None
        if not self._answer.status:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the answer out, unless it only announces another (1xx)."""
        answer, status = self._answer, self._parser.get_status_code()
        assert answer is not None
        if status < 200:
            self._headers = []
            return
        if self._is_whole:
            return
        answer.status, answer.headers, self._headers = status, self._headers, []
        if self._head is not None and not self._head.done():
            self._head.set_result(None)
        if self._is_head_request:
            self._is_whole = True

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body, as far as it is this answer's."""
        if not self._is_whole:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        assert self._answer is not None
        if self._answer.status and not self._is_whole:
            self._is_whole = True
            self._is_kept = self._parser.should_keep_alive()

    # What follows from it.

    def _hand_on(self, answer: HttpAnswer) -> None:
        parts, self._parts = self._parts, []
        answer.take(parts)

    def _send_on(self) -> None:
        while len(self._unsent) and not self._is_full and self.is_open:
            assert self._transport is not None
            piece, self._unsent = self._unsent[:_PIECE_BYTES], self._unsent[_PIECE_BYTES:]
            self._transport.write(piece)

    def _end(self) -> None:
        """The answer is whole: give it up, and be used again where that is safe."""
        answer = self._answer
        assert answer is not None
        is_kept = self._is_kept and not len(self._unsent) and not self._is_full and self.is_open
        self._let_go()
        self._answer = None
        self.resume()
        if is_kept:
            self.is_reused = True
            self.idle_since_s = self._loop.time()
            self._on_idle(self)
        else:
            self.abort()
        answer.end()

    def _fail(self, error: UpstreamError) -> None:
        answer, head = self._answer, self._head
        self._drop()
        if head is not None and not head.done():
            head.set_exception(error)
        elif answer is not None:
            answer.end(error)

    def _drop(self) -> None:
        self._let_go()
        self._answer = None
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> None:
        self._unsent = memoryview(b"")
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _check_time(self) -> None:
        """See whether a step takes too long. One timer an exchange: pieces only note when they came."""
        now, limits = self._loop.time(), self._limits
        if len(self._unsent) or self._is_full:
            due_s = self._taken_at_s + limits.write_timeout_s
            if now >= due_s:
                self._fail(UpstreamWriteTimeoutError(self._origin, limits.write_timeout_s))
                return
            self._heard_at_s = now  # it need not answer before it has the request
        elif self._is_paused:
            due_s = now + limits.read_timeout_s
        else:
            due_s = self._heard_at_s + limits.read_timeout_s
            if now >= due_s:
                self._fail(UpstreamReadTimeoutError(self._origin, limits.read_timeout_s))
                return
        self._watch = self._loop.call_at(due_s, self._check_time)


def _ends_with_connection(answer: HttpAnswer) -> bool:
    """Whether nothing but the end of its connection says where an answer ends."""
    names = {name.lower() for name, _ in answer.headers}
    return answer.status not in NO_BODY and names.isdisjoint((b"content-length", b"transfer-encoding"))
