"""One answer for the client out of as many as it takes: where the model calls our tool alone, it is asked on.

Whatever goes wrong with that, the client gets what the model said without our tool. Only where the upstream fails on a
later round in a way that may pass, the client gets that failure, as it would have had without us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from sluice.proxy.answers import SourcedAnswer
from sluice.proxy.encoding import UnreadableBodyError, unpack
from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header, find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter import Source
from sluice.proxy.search_tool.events import rendered
from sluice.proxy.search_tool.form import Form, Kept, keep
from sluice.proxy.search_tool.rounds import Call, Round
from sluice.proxy.translation.answer import MAX_ANSWER_BYTES
from sluice.proxy.translation.errors import AnswerTooLargeError
from sluice.proxy.translation.json_codec import Json, decode_object, encode
from sluice.proxy.translation.sse import Event, EventParser

T = TypeVar("T")

MAX_ROUNDS = 4
"""Times that a turn's answer is gone on with."""
LAST = "\n\n(No more searches in this turn: go on with what is here, or use other tools.)"
"""Said with the results of the last of them."""
MAX_CALLS = 8
"""Searches that one round may ask for."""
_PASSING = frozenset((408, 409, 425, 429)) | frozenset(range(500, 600))
"""Statuses of failures that may pass."""
_LENGTHS = frozenset((b"content-length", b"content-encoding", b"transfer-encoding"))


class Turn(Protocol):
    """What an answer belongs to."""

    form: Form

    async def search(self, call: Call) -> str:
        """What a call comes to; never raises."""
        ...

    async def ask_on(self, messages: Sequence[Json]) -> SourcedAnswer:
        """Send the request again with these messages behind its own."""
        ...

    async def keep(self, kept: Kept, told: Sequence[Json]) -> None:
        """Keep the exchange for the client's next requests; never raises.

        Args:
            kept: the exchange.
            told: what the client saw, as its next request gives it back.
        """
        ...


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
    rounds = _Rounds(answer, turn)
    if not (find(headers, b"content-type") or "").lower().startswith("text/event-stream"):
        return await _whole(rounds, encoding)
    # Identity was asked for. A stream that is packed all the same passes as it is.
    return _Streamed(rounds) if encoding == "identity" else answer


class _Rounds:
    """The rounds of one turn, and where the answer now being read came from."""

    def __init__(self, answer: SourcedAnswer, turn: Turn) -> None:
        self.turn = turn
        self.answer = answer
        self.first = answer
        self._all = [answer]
        self.done: list[Round] = []
        self.texts: list[list[str]] = []

    @property
    def source(self) -> Source:
        """The upstream, where it answered any of the rounds."""
        sources = [answer.source for answer in self._all]
        return Source.UPSTREAM if Source.UPSTREAM in sources else sources[0]

    @property
    def num_retries(self) -> int:
        """Of all rounds."""
        return sum(answer.num_retries for answer in self._all)

    async def go_on(self, round_: Round) -> bool:
        """Take a whole round, and ask on where that is due; whether another answer is there to be read.

        Raises:
            UpstreamError: the upstream gives no answer.
            _RefusedError: it fails, and may not the next time.
        """
        self.done.append(round_)
        num_answered = len(self.texts)
        if not round_.calls or not round_.awaits_results:
            return False
        if not round_.is_ours_alone:
            self.texts.append(await self._search(round_))
            return False
        if num_answered == MAX_ROUNDS:
            return False
        texts = await self._search(round_)
        if num_answered + 1 == MAX_ROUNDS:
            texts = [text + LAST for text in texts]
        form = self.turn.form
        try:
            behind = [
                message
                for one, found in zip(self.done, [*self.texts, texts], strict=True)
                for message in form.answered(one.parts, list(zip(one.calls, found, strict=True)))
            ]
            answer = await self.turn.ask_on(behind)
        except UpstreamError:
            raise
        except Exception as error:  # a fault of ours: the client gets what there is
            logger.error(fields("search_tool_failed", error=where(error)))
            return False
        if answer.status != 200:
            if answer.status in _PASSING:
                raise _RefusedError(answer)
            answer.close()
            logger.error(fields("search_tool_refused", status=answer.status))
            return False
        self.texts.append(texts)
        self.answer.close()
        self.answer = answer
        self._all.append(answer)
        return True

    async def keep(self) -> None:
        """Keep what the client does not see."""
        if not self.texts or not self.done:
            return
        hidden, last, form = self.done[:-1], self.done[-1], self.turn.form
        exchange = _or_none(lambda: (keep(form, hidden, self.texts, last), form.told(self.done)))
        if exchange is not None:
            await self.turn.keep(*exchange)

    async def _search(self, round_: Round) -> list[str]:
        found = await asyncio.gather(*(self.turn.search(call) for call in round_.calls[:MAX_CALLS]))
        return [*found, *[f"search failed: at most {MAX_CALLS} searches at once"] * (len(round_.calls) - len(found))]


class _RefusedError(Exception):
    """The upstream fails on a later round, and may not the next time.

    Args:
        answer: what it says.
    """

    def __init__(self, answer: SourcedAnswer) -> None:
        super().__init__(f"upstream answered {answer.status} to the request that carries search results")
        self.answer = answer


def _or_none(read: Callable[[], T | None]) -> T | None:
    """What comes of an upstream's answer; None where it has no form that is known."""
    try:
        return read()
    except Exception as error:  # whatever an upstream sends, the answer goes on
        logger.error(fields("search_tool_failed", error=where(error)))
        return None


class _Searched:
    """What wrapped answers share; see `SourcedAnswer`."""

    def __init__(self, rounds: _Rounds, headers: Sequence[Header]) -> None:
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

    def __init__(self, rounds: _Rounds, headers: Sequence[Header], body: bytes) -> None:
        super().__init__(rounds, headers)
        self._body = body

    async def read(self) -> bytes:
        """See `Answer`."""
        body, self._body = self._body, b""
        return body


async def _whole(rounds: _Rounds, encoding: str) -> SourcedAnswer:
    raw = await _read(rounds.answer)
    headers, form = rounds.first.headers, rounds.turn.form
    bodies: list[Json] = []
    body = _body(raw, encoding)
    while body is not None and (round_ := _or_none(partial(form.read, body))) is not None:
        bodies.append(body)
        try:
            if not await rounds.go_on(round_):
                break
        except _RefusedError as error:
            return error.answer
        packed = find([(name.lower(), value) for name, value in rounds.answer.headers], b"content-encoding")
        body = _body(await _read(rounds.answer), packed or "identity")
    if not any(one.calls for one in rounds.done):
        return _Held(rounds, headers, raw)
    await rounds.keep()
    spliced = _or_none(lambda: encode(form.spliced(bodies)))
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

    def __init__(self, rounds: _Rounds) -> None:
        super().__init__(rounds, [header for header in rounds.first.headers if header[0].lower() not in _LENGTHS])
        self._stream = rounds.turn.form.stream()
        self._parser = EventParser()
        self._is_raw = False
        self._is_at_end = False

    async def read(self) -> bytes:
        """See `Answer`."""
        while not self._is_at_end:
            data = await self._rounds.answer.read()
            events = self._parser.feed(data) if data else self._parser.end()
            out = b"".join(map(self._feed, events))
            if not data and await self._is_last():
                self._is_at_end = True
                out += _or_none(self._stream.finish) or b""
            if out:
                return out
        return b""

    def _feed(self, event: Event) -> bytes:
        if not self._is_raw:
            try:
                return self._stream.feed(event)
            except Exception as error:  # of no form that is known: it goes on as it came
                logger.error(fields("search_tool_failed", error=where(error)))
                self._is_raw = True
        return rendered(event)

    async def _is_last(self) -> bool:
        """Whether the stream that has just ended is the last one; else the next is there to be read."""
        round_ = None if self._is_raw else _or_none(self._stream.round)
        try:
            goes_on = round_ is not None and await self._rounds.go_on(round_)
        except _RefusedError as error:
            error.answer.close()
            raise UpstreamError(str(error)) from None
        if goes_on:
            self._stream.next_round()
            self._parser = EventParser()
            return False
        if round_ is not None:
            await self._rounds.keep()
        return True
