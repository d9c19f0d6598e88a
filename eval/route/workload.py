"""The conversations of a simulation: recorded ones, cut into turns, and when their agents ask.

A conversation is played many times; what a person or a tool says in it is new each time, so that no two share a
prefix but for the leading system messages, which all conversations with the same agent do. Knows no replica.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, groupby, takewhile

from sluice.backend.router import Prompt
from sluice.eval.data import Trace


@dataclass(frozen=True, slots=True)
class Part:
    """What stands in a prompt in one piece, behind what stands before it: a part has one place alone.

    A system prompt, an answer, or all that came between two answers.
    """

    num_tokens: int
    shared: bytes = b""
    """Its digest, where other conversations may begin the same; empty where it is this one's alone."""


@dataclass(frozen=True, slots=True)
class Request:
    """One turn of a script."""

    parts: tuple[int, ...]
    """Indexes into the script's parts that make up the prompt."""
    ends: tuple[int, ...]
    """Tokens up to and including each."""
    answer: int
    """Index of the part that the answer becomes."""


@dataclass(frozen=True, slots=True)
class Script:
    """A recorded conversation as the simulation sees it."""

    parts: tuple[Part, ...]
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When requests come."""

    sessions_per_replica: int = 16
    """Agents that work at a time, for each replica; one plays conversation after conversation."""
    requests_per_replica: int = 3_000
    """How many are made, for each replica."""
    tool_s: float = 4.0
    """Median time between an answer and the agent's next request, in seconds (log-normal, sigma 1)."""
    pause_share: float = 0.03
    """Share of turns before which a person is asked."""
    pause_s: float = 180.0
    """Mean time that the person takes, in seconds (exponential)."""

    def gap_s(self, draw: random.Random) -> float:
        """Draw the time until the next request, in seconds."""
        if draw.random() < self.pause_share:
            return draw.expovariate(1 / self.pause_s)
        return self.tool_s * draw.lognormvariate(0.0, 1.0)


@dataclass(slots=True)
class Playing:
    """One conversation while it is played."""

    script: Script
    ids: list[bytes]
    """Of each part, unlike those of any other playing unless it is shared."""
    next_turn: int = 0

    def prompt(self, turn: int) -> Prompt:
        """The prompt of a turn."""
        request = self.script.requests[turn]
        num_shared = 1 if self.script.parts[request.parts[0]].shared else 0
        return Prompt(tuple(map(self.ids.__getitem__, request.parts)), request.ends, num_shared)

    def answered(self, turn: int) -> Prompt:
        """The same with the answer behind it: what the replica's cache then holds."""
        request, prompt = self.script.requests[turn], self.prompt(turn)
        end = prompt.num_tokens + self.script.parts[request.answer].num_tokens
        return Prompt((*prompt.hashes, self.ids[request.answer]), (*prompt.ends, end), prompt.num_shared)


def script_of(trace: Trace, max_turns: int | None) -> Script | None:
    """Cut a conversation into turns; None where it has none."""
    cut = _Parts(trace)
    requests: list[Request] = []
    answers: set[int] = set()
    history: list[int] = []
    num_read = 0
    for turn in trace.turns(max_turns):
        if turn.begins_request:
            history, num_read = [], 0
        new = list(turn.history[num_read:])
        if not history:
            system = list(takewhile(cut.is_system, new))
            cut.add(history, system, is_shared=True)
            del new[: len(system)]
        for is_answer, run in groupby(new, answers.__contains__):
            for messages in [[one] for one in run] if is_answer else [list(run)]:
                cut.add(history, messages)
        num_read = len(turn.history)
        answers.add(turn.answer)
        if history:
            answered = list(history)
            cut.add(answered, [turn.answer])
            ends = tuple(accumulate(cut.parts[part].num_tokens for part in history))
            requests.append(Request(tuple(history), ends, answered[-1]))
    return Script(tuple(cut.parts), tuple(requests)) if requests else None


class _Parts:
    """The parts of one conversation: the same messages behind the same part are one part."""

    def __init__(self, trace: Trace) -> None:
        self.parts: list[Part] = []
        self._messages = trace.messages
        self._known: dict[tuple[int, ...], int] = {}

    def is_system(self, index: int) -> bool:
        """Whether a message is the system's."""
        return self._messages[index].role in ("system", "developer")

    def add(self, history: list[int], indexes: list[int], *, is_shared: bool = False) -> None:
        """Put messages, as one part, behind a history; none are no part."""
        if not indexes:
            return
        key = (history[-1] if history else -1, *indexes)
        if key not in self._known:
            self._known[key] = len(self.parts)
            messages = [self._messages[index] for index in indexes]
            digest = blake2b(b"".join(one.identity for one in messages), digest_size=16).digest() if is_shared else b""
            self.parts.append(Part(round(sum(one.num_tokens for one in messages)), digest))
        history.append(self._known[key])


def scripts_of(traces: Iterable[Trace], max_turns: int | None) -> list[Script]:
    """Cut conversations into turns; those without a turn are left out."""
    return [script for trace in traces if (script := script_of(trace, max_turns)) is not None]


def play(scripts: Sequence[Script], salt: bytes, draw: random.Random) -> Playing:
    """Begin to play a script drawn at random; playings with different salts share no more than system prompts."""
    script = draw.choice(scripts)
    return Playing(script, [part.shared or salt + index.to_bytes(4, "big") for index, part in enumerate(script.parts)])
