"""What a conversation's input costs: how many tokens a provider's prompt cache gives back, and at what price.

Two meters. `PrefixMeter` takes the longest run of leading messages forwarded identically on the turn before as read;
`BreakpointMeter` follows Anthropic's rules for the breakpoints that are really in the request. Knows no policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sluice.eval.message import Message

OUTPUT_PRICE = 5.0
"""An output token, in input tokens."""
MAX_BREAKPOINTS = 4
LOOKBACK_BLOCKS = 20
"""How many blocks a breakpoint looks back for an entry of the cache, itself included."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a token costs, in units of an input token without any cache."""

    read: float
    write: float
    ttl_s: float
    """After this long the cache is empty."""


PRICES = {
    "anthropic": Prices(read=0.1, write=1.25, ttl_s=300.0),
    "anthropic-1h": Prices(read=0.1, write=2.0, ttl_s=3600.0),
    "openai": Prices(read=0.1, write=1.0, ttl_s=300.0),
    "self-hosted": Prices(read=0.0, write=1.0, ttl_s=300.0),
}


class Cache(StrEnum):
    """How it is decided which tokens are read from the cache."""

    PREFIX = "prefix"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Usage:
    """How the tokens of a request, or of many, were billed."""

    read: float = 0.0
    write: float = 0.0
    plain: float = 0.0
    """Neither read from a cache nor written to one."""

    @property
    def num_tokens(self) -> float:
        """All of them."""
        return self.read + self.write + self.plain

    def cost(self, prices: Prices) -> float:
        """In input tokens."""
        return self.read * prices.read + self.write * prices.write + self.plain

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.read + other.read, self.write + other.write, self.plain + other.plain)


class Meter(Protocol):
    """Follows one conversation, request by request."""

    def bill(self, messages: Sequence[Message], *, num_shared: int, is_cold: bool) -> Usage:
        """Bill the next request.

        Args:
            messages: as they are forwarded.
            num_shared: how many leading messages the request before held identically.
            is_cold: whether the provider's cache has expired since.
        """
        ...


class PrefixMeter:
    """The leading messages that were forwarded identically on the turn before are read, the others written."""

    def bill(self, messages: Sequence[Message], *, num_shared: int, is_cold: bool) -> Usage:
        """See `Meter`."""
        num_read = 0 if is_cold else num_shared
        read = sum(message.num_tokens for message in messages[:num_read])
        return Usage(read=read, write=sum(message.num_tokens for message in messages[num_read:]))


class BreakpointMeter:
    """Prices from `cache_control` in the request: at most four breakpoints, each looking back 20 blocks.

    An entry of the cache is the request up to a breakpoint. What follows the last breakpoint is plain input. The
    provider's least length of a cached prefix is left out, since requests here lack tools and system prompts.
    Source: Anthropic, "Prompt caching" (how automatic prefix checking works).
    """

    def __init__(self) -> None:
        self._entries: set[bytes] = set()

    def bill(self, messages: Sequence[Message], *, num_shared: int, is_cold: bool) -> Usage:
        """See `Meter`."""
        if is_cold:
            self._entries.clear()
        ends: list[float] = []
        prefixes: list[bytes] = []
        breakpoints: list[int] = []
        total, chain = 0.0, hashlib.blake2b(digest_size=16)
        for message in messages:
            chain.update(message.identity)
            for number, block in enumerate(message.blocks):
                chain.update(number.to_bytes(4))
                total += block.num_tokens
                if block.is_breakpoint:
                    breakpoints.append(len(ends))
                ends.append(total)
                prefixes.append(chain.digest())
        breakpoints = breakpoints[-MAX_BREAKPOINTS:]
        num_read = 0
        for position in breakpoints:
            for looked_at in range(position, max(-1, position - LOOKBACK_BLOCKS), -1):
                if prefixes[looked_at] in self._entries:
                    num_read = max(num_read, looked_at + 1)
                    break
        num_cached = breakpoints[-1] + 1 if breakpoints else 0
        self._entries.update(prefixes[position] for position in breakpoints)
        read = ends[num_read - 1] if num_read else 0.0
        cached = ends[num_cached - 1] if num_cached else 0.0
        return Usage(read=read, write=cached - read, plain=total - cached)


def meter(cache: Cache) -> Meter:
    """A meter for one conversation."""
    return BreakpointMeter() if cache is Cache.ANTHROPIC else PrefixMeter()
