"""What a policy is: something that makes of each request of a conversation the messages that are forwarded.

Frames may use hindsight (what is tool output, which facts are needed later); what is judged sees the client's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sluice.eval.data import Trace
from sluice.eval.facts import TurnFacts


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a conversation."""

    indexes: tuple[int, ...]
    """Where its messages stand in the recorded conversation."""
    messages: Sequence[bytes]
    """Their JSON, as the client sends it."""
    pause_s: float
    """Seconds that passed since the request before, where the provider's cache expired in them; else 0."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What a policy made of a request."""

    messages: Sequence[bytes]
    overhead_ms: float | None = None
    """How long it took, where that has a meaning."""
    round_trip_ms: float | None = None
    """From the request's first byte to the answer's last, over HTTP."""
    num_tokens: tuple[int, int] | None = None
    """Tokens that came in and that went out, where a proxy says so."""
    num_further_requests: int = 0
    """That a proxy made of its upstream beside it, on its own account."""
    bypass: str | None = None
    """Why compression was skipped or failed, where the policy says so."""


@dataclass(frozen=True, slots=True)
class Hindsight:
    """What only a frame may know of a conversation."""

    trace: Trace
    facts: Sequence[TurnFacts]
    seed: int


class Conversation(Protocol):
    """A policy at work on one conversation."""

    async def forward(self, request: Request) -> Forwarded:
        """Make of a request what is forwarded; called for each turn in order."""
        ...


class Policy(Protocol):
    """Something that decides what is forwarded."""

    @property
    def name(self) -> str:
        """What it is asked for by, and shown as."""
        ...

    def open(self, hindsight: Hindsight) -> Conversation:
        """Begin a conversation."""
        ...
