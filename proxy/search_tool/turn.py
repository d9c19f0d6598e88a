"""One turn of the client's while it is answered: its rounds so far, and whether the upstream is asked for another.

Whatever goes wrong with that, the client gets what the model said without our tool. Where that is nothing, or the
upstream fails on a later round in a way that may pass, the client gets the failure, as it would have had without us: an
empty answer reads as the end of the agent's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sluice.proxy.answers import SourcedAnswer
from sluice.proxy.errors import UpstreamError
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter import Source
from sluice.proxy.search_tool.definition import NAME
from sluice.proxy.search_tool.form import Form, Kept, keep
from sluice.proxy.search_tool.rounds import Call, Round
from sluice.proxy.translation.json_codec import Json

T = TypeVar("T")

MAX_ROUNDS = 4
"""Times that a turn's answer is gone on with."""
LAST = "\n\n(No more searches in this turn: go on with what is here, or use other tools.)"
"""Said with the results of the last of them."""
MAX_CALLS = 8
"""Searches that one round may ask for."""
_PASSING = frozenset((408, 409, 425, 429)) | frozenset(range(500, 600))
"""Statuses of failures that may pass."""


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


class Rounds:
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
            UpstreamError: the upstream gives no answer, or none but searches.
            RefusedError: it fails, and may not the next time, or nothing was said before.
        """
        self.done.append(round_)
        num_answered = len(self.texts)
        if not round_.calls or not round_.awaits_results:
            return False
        if not round_.is_ours_alone:
            self.texts.append(await self._search(round_))
            return False
        has_text = any(one.has_text for one in self.done)
        if num_answered == MAX_ROUNDS:
            if not has_text:
                raise UpstreamError(f"the model called {NAME} {len(self.done)} times in a row and said nothing")
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
            logger.error(fields("search_tool_refused", status=answer.status))
            if answer.status in _PASSING or not has_text:
                raise RefusedError(answer)
            answer.close()
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
        exchange = or_none(lambda: (keep(form, hidden, self.texts, last), form.told(self.done)))
        if exchange is not None:
            await self.turn.keep(*exchange)

    async def _search(self, round_: Round) -> list[str]:
        found = await asyncio.gather(*(self.turn.search(call) for call in round_.calls[:MAX_CALLS]))
        return [*found, *[f"search failed: at most {MAX_CALLS} searches at once"] * (len(round_.calls) - len(found))]


class RefusedError(Exception):
    """The upstream fails on a later round, and that is what the client has to know.

    Args:
        answer: what it says.
    """

    def __init__(self, answer: SourcedAnswer) -> None:
        super().__init__(f"upstream answered {answer.status} to the request that carries search results")
        self.answer = answer


def or_none(read: Callable[[], T | None]) -> T | None:
    """What comes of an upstream's answer; None where it has no form that is known."""
    try:
        return read()
    except Exception as error:  # whatever an upstream sends, the answer goes on
        logger.error(fields("search_tool_failed", error=where(error)))
        return None
