"""Reads the upstream's answers for a turn, whole or event by event, and gives the client one.

What is asked on for is decided in `turn.py`; here the rounds' bytes become one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sluice.proxy.answers import SourcedAnswer
from sluice.proxy.encoding import UnreadableBodyError, unpack
from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header, find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter import Source
from sluice.proxy.search_tool.turn import RefusedError, Rounds, Turn, or_none
from sluice.proxy.translation.answer import MAX_ANSWER_BYTES
from sluice.proxy.translation.errors import AnswerTooLargeError
from sluice.proxy.translation.faults import read_fault
from sluice.proxy.translation.json_codec import Json, decode_object, encode
from sluice.proxy.translation.sse import Event, EventParser, rendered
from sluice.proxy.upstreams.answers import hold

_LENGTHS = frozenset((b"content-length", b"content-encoding", b"transfer-encoding"))


async def answered(answer: SourcedAnswer, turn: Turn) -> SourcedAnswer:
    """Wrap an answer, so that calls of our tool in it are answered here.

    Args:
        answer: the upstream's, its body not yet read. One that is no stream of events is read here.
        turn: what it belongs to.

    Raises:
        UpstreamError: an answer that is no stream broke off.
    """
    headers = [(name.lower(), value) for name, value in answer.headers]
    encoding = find(headers, b"content-encoding") or "identity"
    if answer.status != 200:
        return answer
    rounds = Rounds(answer, turn)
    if not (find(headers, b"content-type") or "").lower().startswith("text/event-stream"):
        return await _whole(rounds, encoding)
    # Identity was asked for. A stream that is packed all the same passes as it is.
    return _Streamed(rounds) if encoding == "identity" else answer


class _Searched:
    """What wrapped answers share; see `SourcedAnswer`."""

    def __init__(self, rounds: Rounds, headers: Sequence[Header]) -> None:
        self._rounds = rounds
        self.status = rounds.first.status
        self.headers = headers
        self.upstream = rounds.first.upstream
        self.sluice_headers = rounds.first.sluice_headers

    @property
    def source(self) -> Source:
        """See `SourcedAnswer`."""
        return self._rounds.source

    @property
    def num_retries(self) -> int:
        """See `SourcedAnswer`."""
        return self._rounds.num_retries

    def close(self) -> None:
        """See `Answer`."""
        self._rounds.answer.close()


class _Held(_Searched):
    """An answer that came whole."""

    def __init__(self, rounds: Rounds, headers: Sequence[Header], body: bytes) -> None:
        super().__init__(rounds, headers)
        self._body = body

    async def read(self) -> bytes:
        """See `Answer`."""
        body, self._body = self._body, b""
        return body


async def _whole(rounds: Rounds, encoding: str) -> SourcedAnswer:
    raw = await _read(rounds.answer)
    headers, form = rounds.first.headers, rounds.turn.form
    bodies: list[Json] = []
    body = _body(raw, encoding)
    while body is not None and (round_ := or_none(partial(form.read, body))) is not None:
        bodies.append(body)
        try:
            if not await rounds.go_on(round_):
                break
        except RefusedError as error:
            return error.answer
        packed = find([(name.lower(), value) for name, value in rounds.answer.headers], b"content-encoding")
        body = _body(await _read(rounds.answer), packed or "identity")
    if not any(one.calls for one in rounds.done):
        return _Held(rounds, headers, raw)
    await rounds.keep()
    spliced = or_none(lambda: encode(form.spliced(bodies)))
    if spliced is None:
        return _Held(rounds, headers, raw)
    kept = [(name, value) for name, value in headers if name.lower() not in _LENGTHS]
    return _Held(rounds, [*kept, (b"content-length", b"%d" % len(spliced))], spliced)


async def _read(answer: SourcedAnswer) -> bytes:
    parts: list[bytes] = []
    num_bytes = 0
    try:
        while data := await answer.read():
            parts.append(data)
            num_bytes += len(data)
            if num_bytes > MAX_ANSWER_BYTES:
                raise AnswerTooLargeError(MAX_ANSWER_BYTES)
    finally:
        answer.close()
    return b"".join(parts)


def _body(raw: bytes, encoding: str) -> Json | None:
    """The answer's JSON; None where it cannot be read."""
    try:
        return decode_object(unpack(raw, encoding, MAX_ANSWER_BYTES))
    except (ValueError, UnreadableBodyError):
        return None


class _Streamed(_Searched):
    """An answer that comes as events."""

    def __init__(self, rounds: Rounds) -> None:
        super().__init__(rounds, [header for header in rounds.first.headers if header[0].lower() not in _LENGTHS])
        self._stream = rounds.turn.form.stream()
        self._parser = EventParser()
        self._is_raw = False
        self._is_at_end = False

    async def read(self) -> bytes:
        """See `Answer`."""
        while not self._is_at_end:
            data = await self._next()
            events = self._parser.feed(data) if data else self._parser.end()
            out = self._parser.comments + b"".join(map(self._feed, events))
            if not data:
                out += await self._ended()
            if out:
                return out
        return b""

    async def _next(self) -> bytes:
        """The upstream's next bytes; none at the end, and where it breaks off when the round is whole."""
        try:
            return await self._rounds.answer.read()
        except UpstreamError:
            if self._is_raw or or_none(self._stream.round) is None:
                raise
            return b""

    def _feed(self, event: Event) -> bytes:
        if event.data.strip() and not self._is_raw:  # some servers keep connections alive with events that say nothing
            try:
                return self._stream.feed(event)
            except Exception as error:  # of no form that is known: it goes on as it came
                logger.error(fields("search_tool_failed", error=where(error)))
                self._is_raw = True
        return rendered(event)

    async def _ended(self) -> bytes:
        """What the client is sent where a round's stream has ended: nothing where the next is there to be read."""
        try:
            is_last = await self._is_last()
        except RefusedError as error:
            self._is_at_end = True
            fault = read_fault((await hold(error.answer)).body, error.answer.status)
            return self._stream.fail(replace(fault, message=f"{error}: {fault.message}"))
        if not is_last:
            return b""
        self._is_at_end = True
        return or_none(self._stream.finish) or b""

    async def _is_last(self) -> bool:
        round_ = None if self._is_raw else or_none(self._stream.round)
        if round_ is not None and await self._rounds.go_on(round_):
            self._stream.next_round()
            self._parser = EventParser()
            return False
        if round_ is not None:
            await self._rounds.keep()
        return True
