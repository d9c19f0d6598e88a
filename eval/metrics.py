"""The figures of one policy on one conversation: what was forwarded, what it cost, what was kept.

Follows a conversation turn by turn; sums only, so that ratios can be taken over many conversations (`report.py`).
Knows no policy: it sees what came out of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from sluice.eval.cost import Meter, Usage
from sluice.eval.data import Trace, Turn
from sluice.eval.facts import TurnFacts
from sluice.eval.message import Message, read_message
from sluice.eval.sources import Sources

MARKER = re.compile(rb"^\[sluice ([0-9a-f]+): [^\n]*\]$", re.MULTILINE)


@dataclass(slots=True)
class Score:
    """Sums over the turns of one conversation under one policy."""

    num_turns: int = 0
    usage: Usage = field(default_factory=Usage)
    turn_usage: list[Usage] = field(default_factory=list)
    """Of each turn."""
    sources: dict[str, Usage] = field(default_factory=dict)
    """What each kind of message was billed at: a role, or the name of the tool whose result it is."""
    output_tokens: float = 0.0
    """Of the agent's real messages: the same on both sides."""
    peak_tokens: float = 0.0
    """Of the largest request."""
    num_rewrites: int = 0
    """Turns whose request did not extend the one before, though the client's did."""
    num_markers: int = 0
    """Markers, each counted when it was first forwarded."""
    num_recoveries: int = 0
    """Messages that gave dropped text back, each counted when it was first forwarded."""
    words: tuple[int, int] = (0, 0)
    """Kept, needed."""
    lines: tuple[int, int] = (0, 0)
    places: tuple[int, int] = (0, 0)
    overhead_ms: list[float] = field(default_factory=list)
    """Of each turn; empty where it has no meaning."""
    round_trip_ms: list[float] = field(default_factory=list)
    """Of each request that was sent over HTTP."""
    num_further_requests: int = 0
    """That a proxy made of its upstream beside those of the agent; they are not billed."""
    bypasses: list[str] = field(default_factory=list)
    """Why compression was skipped, of each turn on which it was."""
    digests: list[bytes] = field(default_factory=list)
    """Of what was forwarded on each turn; markers' ids, which differ by tenant, are left out."""


class Reader:
    """Reads each distinct message once; shared by the policies on one conversation."""

    def __init__(self, trace: Trace) -> None:
        self._read = {message.raw: message for message in trace.messages}

    def __call__(self, raw: bytes) -> Message:
        """Read one message's JSON."""
        message = self._read.get(raw)
        if message is None:
            message = self._read[raw] = read_message(raw)
        return message


class Scorer:
    """Scores one policy on one conversation."""

    def __init__(self, trace: Trace, reader: Reader, meter: Meter) -> None:
        self.score = Score()
        self._trace = trace
        self._read = reader
        self._meter = meter
        self._standing = _Standing()
        self._before: list[bytes] = []
        self._counted: set[bytes] = set()
        self._sources = Sources(trace)

    def turn(
        self,
        turn: Turn,
        facts: TurnFacts,
        *,
        sent: Sequence[bytes],
        forwarded: Sequence[bytes],
        is_cold: bool,
    ) -> None:
        """Count one turn.

        Args:
            turn: which one.
            facts: needed at it.
            sent: the request's messages as the client sent them.
            forwarded: what the policy made of them.
            is_cold: whether the provider's cache has expired.
        """
        messages = [self._read(raw) for raw in forwarded]
        identities = [message.identity for message in messages]
        num_same, num_before = num_shared(self._before, identities), len(self._before)
        self._before = identities
        self._standing.replace(messages, num_same)
        score = self.score
        usage = self._meter.bill(messages, num_shared=num_same, is_cold=is_cold)
        score.num_turns += 1
        score.usage += usage
        score.turn_usage.append(usage)
        self._sources.add(score.sources, messages, turn.history, usage)
        score.output_tokens += self._trace.messages[turn.answer].num_tokens
        score.peak_tokens = max(score.peak_tokens, usage.num_tokens)
        score.num_rewrites += num_same < num_before and not turn.begins_request
        self._count_changes(messages, sent, num_same)
        score.words = _add(score.words, (self._standing.holds(fact.text) for fact in facts.words))
        score.lines = _add(score.lines, (self._standing.holds(fact.text) for fact in facts.lines))
        score.places = _add(score.places, (any(map(self._standing.holds, fact.places)) for fact in facts.words))
        score.digests.append(blake2b(b"".join(message.likeness for message in messages), digest_size=16).digest())

    def _count_changes(self, messages: list[Message], sent: Sequence[bytes], num_same: int) -> None:
        originals = set(sent)
        num_added = len(messages) - len(sent)
        for position, message in enumerate(messages[num_same:], num_same):
            # Behind a rewrite all stands anew that was counted before.
            if message.raw in originals or message.identity in self._counted:
                continue
            self._counted.add(message.identity)
            self.score.num_markers += len(MARKER.findall(message.shown))
            # Where messages were added, the client's stands as many places further up.
            places = {position, position - num_added}
            clients = [self._read(sent[place]).shown for place in places if 0 <= place < len(sent)]
            known = {line for client in clients for line in client.splitlines()}
            given_back = (line for line in message.shown.splitlines() if line not in known and not MARKER.match(line))
            self.score.num_recoveries += any(given_back)


class _Standing:
    """The text that stands in the request, kept from turn to turn so that only what is new is copied."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends: list[int] = []

    def replace(self, messages: Sequence[Message], num_same: int) -> None:
        del self._ends[num_same:]
        del self._text[self._ends[-1] if self._ends else 0 :]
        for message in messages[num_same:]:
            self._text += message.shown + b"\0"  # no fact spans two messages: none holds this byte
            self._ends.append(len(self._text))

    def holds(self, text: bytes) -> bool:
        return text in self._text


def num_shared(before: Sequence[bytes], now: Sequence[bytes]) -> int:
    """Length of the longest run of leading messages that two requests share, by their identities."""
    if before == now[: len(before)]:
        return len(before)
    return next((n for n, (earlier, later) in enumerate(zip(before, now, strict=False)) if earlier != later), len(now))


def _add(sums: tuple[int, int], kept: Iterable[bool]) -> tuple[int, int]:
    answers = list(kept)
    return sums[0] + sum(answers), sums[1] + len(answers)
