"""The compressor's settings: few, frozen, each with its unit."""

from __future__ import annotations

from dataclasses import dataclass

POLICY_VERSION = 1
"""Rises whenever the same prefix would be decided otherwise. It is kept with each rendition; a newer version applies
from the next message on."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a saved token is worth, in facts that may be lost for it: the dial from careful to bold."""

    arrival: float
    """For results that have just come."""
    epoch: float
    """For old results, when the history is rewritten."""


@dataclass(frozen=True, slots=True)
class CompressorSettings:
    """How the compressor decides, and what it may hold in memory."""

    min_run_lines: int = 3
    """Shortest run of lines that a marker may stand for."""
    min_dead_lines: int = 2
    """Shortest range of lines that are dropped as not needed."""
    context_lines: int = 2
    """Lines that stay on each side of a kept line, even where they are visible elsewhere: a fact keeps its place."""
    num_exempt_results: int = 3
    """The newest tool results, which an epoch leaves as they are."""
    balanced: Prices = Prices(arrival=1.5e-4, epoch=3e-4)
    """Prices of mode `balanced`."""
    aggressive: Prices = Prices(arrival=3e-3, epoch=4e-3)
    """Prices of mode `aggressive`."""
    budget_share: float = 0.8
    """How much of a budget is filled when a rewrite makes the messages fit it."""
    min_shed_share: float = 0.1
    """A rewrite that cannot make them fit has to shed at least this share of them."""
    rewrite_margin: float = 4.0
    """By which factor a rewrite's expected gain has to exceed its cost while the provider's cache is warm."""
    max_turns_ahead: int = 60
    """Cap on the turns that a conversation is expected still to have."""
    max_reattached_chars: int = 0
    """Characters of the user's own words that are given back where an agent replaced its history by a summary, if the
    request names its session; 0 gives back none."""
    max_pins: int = 0
    """Ranges of lines that a person may pin in one conversation; 0: nobody may, and none are looked for."""
    max_scored_lines: int = 10_000
    """A result with more lines is not scored, some 25 µs a line: it goes out as in mode `safe`."""
    state_timeout_s: float = 0.5
    """How long a request waits for the state store before it goes on without."""
    decide_timeout_s: float | None = None
    """How long a request waits for its new messages to be decided, before what is left of them goes out untouched; None
    waits for ever."""
    max_conversation_bytes: int = 256 * 2**20
    """Of the states of conversations that are held in this process, by estimate, so that a turn costs only its new
    messages: six to fifteen bytes for each character where lines are scored. One that was let go is built anew from its
    next request. 0 holds none."""
    max_trail_bytes: int = 64 * 2**20
    """Of conversations' last requests that are held in this process, by estimate, for the same; 0 holds none."""
    max_digests: int = 400_000
    """Messages whose digests are held in this process, about 200 bytes each."""
    max_rendition_bytes: int = 32 * 2**20
    """Of renditions that are held in this process as they were read, by estimate: about 1 kB each, and twice their
    record."""
    max_inline_bytes: int = 32_768
    """New messages above this size together are read in a worker thread, so that other requests' streams go on. Where
    lines are scored, that is always done there."""
