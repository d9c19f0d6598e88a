"""When a rewrite pays: plain arithmetic on token counts and a provider's prices. Knows no text.

A rewrite at message p sends everything behind p anew at the write price, once, and saves what it drops on every later
turn at the read price. How many turns are to come is not known; that as many are to come as there were is the
Lindy estimate, right within a factor for conversations whose lengths spread over orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sluice.compressor.profiles import Profile

TOKENS_PER_MESSAGE = 4
CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Load:
    """One message of the forwarded history, in tokens."""

    num_tokens: float
    """As it is forwarded now."""
    num_dead_tokens: float = 0.0
    """By how many it would shrink."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A deliberate rewrite of the history from one message on."""

    start: int
    """Index of the first message that changes."""
    cost: float
    """What this turn costs more than without it, in plain input tokens; below 0 where it saves at once."""
    reason: str
    """`cold`, `pays` or `need`."""


def num_tokens(num_chars: int, num_messages: int = 1) -> float:
    """Estimated tokens of messages, good to some ten percent: what decisions need, not what users are shown."""
    return num_chars / CHARS_PER_TOKEN + TOKENS_PER_MESSAGE * num_messages


def plan_rewrite(
    loads: Sequence[Load],
    profile: Profile,
    *,
    is_cold: bool,
    is_needed: bool,
    num_turns: int,
    banked: float,
    margin: float,
    max_turns_ahead: int,
) -> Rewrite | None:
    """Whether to rewrite the history now, and from which message on.

    Args:
        loads: the messages that the provider has seen, in order.
        profile: what its cache costs.
        is_cold: whether the cache has expired, so that all is written anyway.
        is_needed: whether the request has to become smaller whatever it costs.
        num_turns: turns of the conversation so far.
        banked: what the conversation has saved so far; a rewrite that pays later may spend no more.
        margin: by which factor the expected gain has to exceed the cost.
        max_turns_ahead: cap on the turns that are expected still to come.
    """
    starts = [index for index, load in enumerate(loads) if load.num_dead_tokens > 0]
    if not starts:
        return None
    if is_cold:
        return Rewrite(starts[0], cost=-profile.write * sum(load.num_dead_tokens for load in loads), reason="cold")
    if is_needed:
        kept = sum(load.num_tokens - load.num_dead_tokens for load in loads[starts[0] :])
        dead = sum(load.num_dead_tokens for load in loads)
        return Rewrite(starts[0], kept * (profile.write - profile.read) - dead * profile.read, reason="need")
    turns_ahead = min(num_turns, max_turns_ahead)
    best: Rewrite | None = None
    best_net = 0.0
    num_dead = num_kept = 0.0
    for index in reversed(range(starts[0], len(loads))):
        load = loads[index]
        num_dead += load.num_dead_tokens
        num_kept += load.num_tokens - load.num_dead_tokens
        if load.num_dead_tokens <= 0:
            continue
        cost = num_kept * (profile.write - profile.read) - num_dead * profile.read
        gain = num_dead * profile.read * turns_ahead
        if gain > margin * max(cost, 0.0) and cost <= banked and gain - cost > best_net:
            best, best_net = Rewrite(index, cost, reason="pays"), gain - cost
    return best


class Billed(NamedTuple):
    """Tokens of one request's messages, as the provider charges for them."""

    num_read: float
    """Read from its cache."""
    num_written: float


def turn_saving(sent: Billed, forwarded: Billed, profile: Profile) -> float:
    """What one request costs less than it would have cost untouched, in plain input tokens.

    Args:
        sent: the messages as the client sent them, had nothing been changed.
        forwarded: the messages as they are forwarded.
        profile: what the provider's cache costs.
    """
    return profile.read * (sent.num_read - forwarded.num_read) + profile.write * (
        sent.num_written - forwarded.num_written
    )
