"""Frames that decide on each tool result once, when it arrives, and never again: they cost the cache nothing.

What a result becomes is a function of the result and of hindsight alone. What they drop leaves no marker, which
flatters them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sluice.eval.data import Trace
from sluice.eval.policies.base import Forwarded, Hindsight, Request
from sluice.eval.policies.content import PLACEHOLDER, replace_content

MIN_LINES = 8
"""Results shorter than this are left alone by the frames that drop at random."""

Shorten = Callable[[int, str], str]
"""From a result's index and text to what is forwarded of it."""


class ArrivalConversation:
    """Shortens every tool result of a conversation, the same on each turn."""

    def __init__(self, trace: Trace, shorten: Shorten) -> None:
        self._trace = trace
        self._shorten = shorten
        self._texts: dict[int, str | None] = {}
        self._rendered: dict[tuple[int, bytes], bytes] = {}

    async def forward(self, request: Request) -> Forwarded:
        """See `Conversation`."""
        return Forwarded([self._message(i, raw) for i, raw in zip(request.indexes, request.messages, strict=True)])

    def _message(self, index: int, raw: bytes) -> bytes:
        if index not in self._trace.results:
            return raw
        if index not in self._texts:
            before = self._trace.messages[index].content
            after = self._shorten(index, before)
            self._texts[index] = after if after != before else None
        text = self._texts[index]
        if text is None:
            return raw
        # By index, too: of two results that are alike, each has its own draws.
        if (index, raw) not in self._rendered:
            self._rendered[index, raw] = replace_content(raw, text)
        return self._rendered[index, raw]


@dataclass(frozen=True, slots=True)
class RandomLines:
    """Each line of a result of at least 8 lines is dropped with probability `probability`."""

    probability: float
    name: str

    def open(self, hindsight: Hindsight) -> ArrivalConversation:
        """See `Policy`."""

        def shorten(index: int, text: str) -> str:
            lines = text.split("\n")
            draws = line_draws(hindsight.trace, index, len(lines), seed=hindsight.seed)
            return "\n".join(line for line, draw in zip(lines, draws, strict=True) if draw >= self.probability)

        return ArrivalConversation(hindsight.trace, shorten)


@dataclass(frozen=True, slots=True)
class RandomResults:
    """Each result of at least 8 lines becomes a placeholder with probability `probability`."""

    probability: float
    name: str

    def open(self, hindsight: Hindsight) -> ArrivalConversation:
        """See `Policy`."""

        def shorten(index: int, text: str) -> str:
            draw = result_draw(hindsight.trace, index, text.count("\n") + 1, seed=hindsight.seed)
            return PLACEHOLDER if draw < self.probability else text

        return ArrivalConversation(hindsight.trace, shorten)


@dataclass(frozen=True, slots=True)
class HeadTail:
    """Of each result the first `num_head` and the last `num_tail` lines are kept."""

    num_head: int
    num_tail: int
    name: str

    def open(self, hindsight: Hindsight) -> ArrivalConversation:
        """See `Policy`."""

        def shorten(index: int, text: str) -> str:
            lines = text.split("\n")
            first_of_tail = max(self.num_head, len(lines) - self.num_tail)
            return "\n".join(lines[: self.num_head] + lines[first_of_tail:])

        return ArrivalConversation(hindsight.trace, shorten)


@dataclass(frozen=True, slots=True)
class Oracle:
    """Keeps the lines that hold a fact needed later: every line that showed it, or (tight) one for each fact."""

    is_tight: bool
    name: str

    def open(self, hindsight: Hindsight) -> ArrivalConversation:
        """See `Policy`."""
        kept = self._kept(hindsight)

        def shorten(index: int, text: str) -> str:
            return "\n".join(line for number, line in enumerate(text.split("\n")) if (index, number) in kept)

        return ArrivalConversation(hindsight.trace, shorten)

    def _kept(self, hindsight: Hindsight) -> set[tuple[int, int]]:
        kept: set[tuple[int, int]] = set()
        for facts in hindsight.facts:
            for fact in (*facts.words, *facts.lines):
                if not self.is_tight:
                    kept.update(fact.spots)
                elif kept.isdisjoint(fact.spots):
                    kept.add(fact.spots[0])
        return kept


def line_draws(trace: Trace, index: int, num_lines: int, *, seed: int) -> Iterable[float]:
    """For each line of a result a number in [0, 1): below the probability, it is dropped. 1 in short results.

    The same seed drops more of the same lines as the probability rises, so that cost falls with it steadily.
    """
    if num_lines < MIN_LINES:
        return [1.0] * num_lines
    draw = random.Random(f"lines {seed} {trace.id} {index}")  # noqa: S311 (a frame, no secret)
    return [draw.random() for _ in range(num_lines)]


def result_draw(trace: Trace, index: int, num_lines: int, *, seed: int) -> float:
    """For a whole result a number in [0, 1): below the probability, it is dropped. 1 for short results."""
    if num_lines < MIN_LINES:
        return 1.0
    return random.Random(f"result {seed} {trace.id} {index}").random()  # noqa: S311 (a frame, no secret)
