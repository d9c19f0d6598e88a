"""One turn as the meter sees it, and what it comes to. Plain functions; holds counts and ids, never content."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from sluice.proxy.meter.breakpoints import Breakpoints
from sluice.proxy.meter.counterfactual import Last, advanced, untouched
from sluice.proxy.meter.prices import Price
from sluice.proxy.meter.usage import Usage
from sluice.proxy.wire.types import WireName

MAX_LEADING = 2
"""System messages that may stand before a conversation; they are never new, on its first turn neither."""


class Arm(StrEnum):
    """What was done with a conversation."""

    TREATED = "treated"
    """It was compressed."""
    HOLDOUT = "holdout"
    """It was drawn to go through untouched."""
    OFF = "off"
    """Its mode was `off`, or there was nothing to compress."""


class Source(StrEnum):
    """Where an answer came from."""

    UPSTREAM = "upstream"
    HIT = "hit"
    """The prompt cache."""
    SHARED = "shared"
    """The upstream's answer to another request that was the same."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was answered, or failed."""

    at_s: float
    """When it came, by the wall clock."""
    model: str
    """As the client named it."""
    upstream: str = ""
    """Name of the upstream that served it."""
    upstream_model: str = ""
    """The model as that upstream names it, by which it is priced; empty where that is the same."""
    is_local: bool = False
    """Whether that upstream is self-hosted, so that no provider charges for it."""
    key: str = ""
    """Id of the proxy key, or of the tenant."""
    wire: WireName = WireName.CHAT
    mode: str
    """The mode in force."""
    is_holdout: bool = False
    conversation: str = ""
    """Its id; empty where there is none."""
    status: int
    """HTTP status that the client was sent; 499 where it had hung up."""
    tokens_in: int | None = None
    """Tokens of the messages that came in, by our tokenizer; None where they were not counted."""
    tokens_out: int | None = None
    """Tokens of the messages forwarded."""
    usage: Usage | None = None
    """By the upstream's count; None where it gave none."""
    overhead_s: float = 0.0
    """Time that was ours, in seconds."""
    total_s: float = 0.0
    """From the request's end to the answer's, in seconds."""
    epoch: str | None = None
    bypass: str | None = None
    num_new: int = 0
    """Messages that were decided on this turn."""
    num_messages: int = 0
    stream: bool = False
    source: Source = Source.UPSTREAM
    num_retries: int = 0
    ttl_s: float = 300.0
    """Life of the provider's cache, in seconds."""
    breakpoints: Breakpoints | None = None
    """Of the request, where its wire has them."""
    traceparent: str | None = None
    """W3C trace context that the client sent."""

    @property
    def arm(self) -> Arm:
        """What was done with the conversation."""
        if self.mode == "off" or not self.conversation:
            return Arm.OFF
        return Arm.HOLDOUT if self.is_holdout else Arm.TREATED

    @property
    def num_dropped(self) -> int | None:
        """By how many tokens the request became smaller; None where they were not counted."""
        return None if self.tokens_in is None or self.tokens_out is None else self.tokens_in - self.tokens_out


class Charge(msgspec.Struct, frozen=True):
    """What a turn comes to."""

    cost: float = 0.0
    """In dollars; 0 where nothing was measured, or the model has no price."""
    cost_untouched: float = 0.0
    """What it would have cost untouched."""
    cost_answered: float = 0.0
    """What the upstream would have charged for an answer that came out of the prompt cache."""
    is_metered: bool = False
    is_priced: bool = False
    last: Last | None = None
    """The conversation as of this turn; None where the turn says nothing of it."""


def charge(turn: Turn, price: Price | None, last: Last | None = None) -> Charge:
    """Work out what a turn comes to.

    Args:
        turn: the turn.
        price: of its model; None where it has none.
        last: the conversation as of the turn before.
    """
    usage = turn.usage
    if usage is None:
        return Charge()
    cost = price.cost(usage) if price is not None else 0.0
    if turn.source is not Source.UPSTREAM:
        return Charge(cost_answered=cost, is_metered=True, is_priced=price is not None)
    cost_untouched, now = cost, None
    # What was dropped uncounted is no saving, and no reason to take for new later what was dropped before.
    if turn.arm is Arm.TREATED and (num_dropped := turn.num_dropped) is not None:
        as_sent = untouched(
            usage,
            num_dropped=num_dropped,
            at_s=turn.at_s,
            ttl_s=turn.ttl_s,
            last=last,
            breakpoints=turn.breakpoints,
            epoch=turn.epoch,
            is_continued=turn.num_messages - turn.num_new > MAX_LEADING,
        )
        cost_untouched = price.cost(as_sent) if price is not None else 0.0
        now = advanced(
            usage,
            num_dropped=num_dropped,
            at_s=turn.at_s,
            ttl_s=turn.ttl_s,
            last=last,
            breakpoints=turn.breakpoints,
            epoch=turn.epoch,
        )
    return Charge(cost, cost_untouched, 0.0, is_metered=True, is_priced=price is not None, last=now)


def day_of(at_s: float) -> str:
    """The day of a moment, UTC, as `2026-11-23`."""
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


_FIRST_MS = 0.05
_RATIO = 1.2


def bucket_of(overhead_s: float) -> int:
    """Index of the bucket that a duration falls in; each is a fifth wider than the one before it."""
    ms = overhead_s * 1000
    return 0 if ms <= _FIRST_MS else min(99, math.ceil(math.log(ms / _FIRST_MS, _RATIO)))


def bucket_ms(index: int) -> float:
    """Upper end of a bucket, in milliseconds."""
    return _FIRST_MS * _RATIO**index


def counters_of(turn: Turn, charged: Charge) -> dict[str, float]:
    """What a turn adds to the sums. Zeros are left out."""
    usage = turn.usage or Usage()
    is_upstream = turn.source is Source.UPSTREAM
    counters: dict[str, float] = {
        "turns": 1,
        "errors": turn.status >= 400,
        "unmetered": is_upstream and turn.status < 400 and not charged.is_metered,
        "unpriced": is_upstream and charged.is_metered and not charged.is_priced,
        "tokens_in": turn.tokens_in or 0,
        "tokens_out": turn.tokens_out or 0,
        "cost": charged.cost,
        "cost_untouched": charged.cost_untouched,
        "cost_answered": charged.cost_answered,
        "retries": turn.num_retries,
        f"answer.{turn.source}": 1,
        f"overhead.{bucket_of(turn.overhead_s)}": 1,
    }
    if is_upstream:
        counters |= {f"usage.{name}": getattr(usage, name) for name in Usage.__struct_fields__}
    if turn.epoch is not None:
        counters[f"epoch.{turn.epoch}"] = 1
    if turn.bypass is not None:
        counters[f"bypass.{turn.bypass}"] = 1
    return {name: float(value) for name, value in counters.items() if value}
