"""Turns for the meter's tests."""

from __future__ import annotations

from typing import Any

from sluice.proxy.meter.turn import Turn
from sluice.proxy.meter.usage import Usage

AT_S = 1_795_000_000.0
DAY = "2026-11-18"
MODEL = "claude-sonnet-4"


def turn(**changes: Any) -> Turn:
    """A turn of 3,000 tokens that was sent with 2,000, and read half of them from the cache."""
    known: dict[str, Any] = {
        "at_s": AT_S,
        "model": MODEL,
        "mode": "balanced",
        "key": "k1",
        "upstream": "anthropic",
        "conversation": "c1",
        "status": 200,
        "tokens_in": 3000,
        "tokens_out": 2000,
        "usage": Usage(cache_write_5m=1000, cache_read=1000, output_tokens=100),
        "overhead_s": 0.002,
        "num_new": 2,
        "num_messages": 2,
    }
    return Turn(**{**known, **changes})
