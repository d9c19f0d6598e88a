"""Which replica gets a request: plain functions of what is known, in tokens of prefill.

A request costs a replica what it has not cached, and waits behind what is queued there; both are tokens, so they add
up (as in Preble, arXiv 2407.00023). Computing weighs more than waiting, or one queue sets off moves that make the next:
with equal weights a simulation lost a tenth of all hits to them. Knows no clock and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.float64]
"""One figure a replica, in tokens."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How prefixes and load are weighed."""

    prefill_weight: float = 10.0
    """What a token to compute counts against one that is queued: a move costs work and room, a queue passes."""
    slack: float = 0.02
    """Share by which a replica may lie above the mean of recent work before that counts against it."""
    pull: float = 1.0
    """What each token of recent work beyond the slack counts, in tokens of prefill."""
    recent_s: float = 600.0
    """Time constant in which work done is forgotten, in seconds."""
    request_tokens: float = 300.0
    """What a request costs beside its prefill (its decoding), in tokens of prefill."""
    capacity_tokens: int = 1_000_000
    """Room of a replica's KV cache until it says how much it has."""
    block_tokens: int = 16
    """Tokens of a block of the KV cache."""


def rendezvous(key: bytes, names: Sequence[str]) -> list[str]:
    """Order the names by highest random weight: every proxy gets the same order, and a lost name moves only its own.

    Thaler and Ravishankar, 1998.
    """
    return sorted(names, key=lambda name: blake2b(name.encode(), key=key[:64], digest_size=8).digest(), reverse=True)


def costs(
    num_tokens: int, cached: Tokens, queued: Tokens, recent: Tokens, is_up: NDArray[np.bool_], settings: RouterSettings
) -> Tokens:
    """What the request would cost at each replica; infinite where it is down.

    Args:
        num_tokens: of the prompt.
        cached: of the prompt, held by each replica.
        queued: work that each replica has been given and has not begun to answer.
        recent: work given to each lately, decayed.
        is_up: which replicas may be used; at least one.
        settings: how they are weighed.
    """
    limit = float(recent[is_up].mean()) * (1 + settings.slack)
    excess = np.maximum(0.0, recent - limit)
    found: Tokens = np.where(
        is_up, settings.prefill_weight * (num_tokens - cached) + queued + settings.pull * excess, np.inf
    )
    return found


def choose(found: Tokens, recent: Tokens, home: int) -> int:
    """Index of the cheapest replica; of equal ones that with the least recent work, and `home` before that."""
    if found[home] == found.min() and not recent.any():
        return home
    best = np.flatnonzero(found == found.min())
    return int(best[np.argmin(recent[best])])
