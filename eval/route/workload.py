"""The conversations of a simulation: recorded ones, cut into turns, and when their agents ask.

A conversation is played many times; what a person or a tool says in it is new each time, so that no two share a
prefix but for the leading system messages, which all conversations with the same agent do. Knows no replica.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from sluice.backend.router import Prompt
from sluice.eval.data import Trace


@dataclass(frozen=True, slots=True)
class Part:
    """What stands in a prompt in one piece: a system prompt, an answer, or all that came between two answers."""

    num_tokens: int
    shared: bytes = b""
    """Its digest, where other conversations may hold the same; empty where it is this one's alone."""


@dataclass(frozen=True, slots=True)
class Request:
    """One turn of a script."""

    parts: tuple[int, ...]
    """Indexes into the script's parts that make up the prompt."""
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
        ends, total = [], 0
        for part in request.parts:
            total += self.script.parts[part].num_tokens
            ends.append(total)
        return Prompt(tuple(self.ids[part] for part in request.parts), tuple(ends))

    def answered(self, turn: int) -> Prompt:
        """The same with the answer behind it: what the replica's cache then holds."""
        request, prompt = self.script.requests[turn], self.prompt(turn)
        end = prompt.num_tokens + self.script.parts[request.answer].num_tokens
        return Prompt((*prompt.hashes, self.ids[request.answer]), (*prompt.ends, end))


def script_of(trace: Trace, max_turns: int | None) -> Script | None:
    """Cut a conversation into turns; None where it has none."""
    parts: list[Part] = []
    requests: list[Request] = []
    history: list[int] = []
    answered_by: dict[int, int] = {}  # part of each answer, by the index of its message
    num_read = 0
    for turn in trace.turns(max_turns):
        if turn.begins_request:
            history, num_read = [], 0
        new: list[int] = []
        for index in turn.history[num_read:]:
            message = trace.messages[index]
            if not history and not new and message.role in ("system", "developer"):
                history.append(len(parts))
                parts.append(Part(round(message.num_tokens), message.identity))
            elif index in answered_by:
                _close(new, trace, parts, history)
                history.append(answered_by[index])
            else:
                new.append(index)
        _close(new, trace, parts, history)
        num_read = len(turn.history)
        answered_by[turn.answer] = len(parts)
        requests.append(Request(tuple(history), len(parts)))
        parts.append(Part(round(trace.messages[turn.answer].num_tokens)))
    return Script(tuple(parts), tuple(requests)) if requests else None


def scripts_of(traces: Iterable[Trace], max_turns: int | None) -> list[Script]:
    """Cut conversations into turns; those without a turn are left out."""
    return [script for trace in traces if (script := script_of(trace, max_turns)) is not None]


def play(scripts: Sequence[Script], salt: bytes, draw: random.Random) -> Playing:
    """Begin to play a script drawn at random; playings with different salts share no more than system prompts."""
    script = draw.choice(scripts)
    ids = [
        blake2b(part.shared or salt + index.to_bytes(4, "big"), digest_size=16).digest()
        for index, part in enumerate(script.parts)
    ]
    return Playing(script, ids)


def _close(new: list[int], trace: Trace, parts: list[Part], history: list[int]) -> None:
    """Make one part of the messages read since the last."""
    if new:
        history.append(len(parts))
        parts.append(Part(round(sum(trace.messages[index].num_tokens for index in new))))
        new.clear()
