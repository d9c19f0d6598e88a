"""Which replica gets a request: plain functions of what is known, in tokens of prefill.

A request costs a replica what it has not cached, and waits behind what is queued there; both are tokens, so they add
up (as in Preble, arXiv 2407.00023). Computing weighs more than waiting, or one queue sets off moves that make the next:
with equal weights a simulation lost a tenth of all hits to them. Knows no clock and no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.float64]
"""One figure a replica, in tokens."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How prefixes and load are weighed."""

    prefill_weight: float = 30.0
    """What a token to compute counts against one that is queued: a move costs work and room, a queue passes."""
    fair_share: float = 0.95
    """Share of the mean of recent work that a replica may have before more counts against it. Below 1, so that of those
    that a new conversation may choose among freely, none is above the mean already."""
    pull: float = 6.0
    """What each token of recent work beyond that counts, in tokens of prefill."""
    recent_s: float = 600.0
    """Time constant in which work done is forgotten, in seconds."""
    request_tokens: float = 300.0
    """What a request costs beside its prefill (its decoding), in tokens of prefill."""
    capacity_tokens: int = 1_000_000
    """Room of a replica's KV cache until it says how much it has."""
    block_tokens: int = 16
    """Tokens of a block of the KV cache."""


def rendezvous(key: bytes, names: Iterable[str]) -> str:
    """The name with the highest random weight: every proxy finds the same, and a lost name moves only its own keys.

    Thaler and Ravishankar, 1998.
    """
    return max(names, key=lambda name: blake2b(name.encode(), key=key[:64], digest_size=8).digest())


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
    limit = float(recent[is_up].mean()) * settings.fair_share
    excess = np.maximum(0.0, recent - limit)
    found: Tokens = np.where(
        is_up, settings.prefill_weight * (num_tokens - cached) + queued + settings.pull * excess, np.inf
    )
    return found


def choose(found: Tokens, recent: Tokens, key: bytes | None, names: Sequence[str]) -> int:
    """Index of the cheapest replica; of equal ones the conversation's own by its hash.

    Equal are all that have nothing queued and no more than their share of work, for a conversation that none of them
    has: so proxies that know nothing of each other, or that were restarted, mostly agree.

    Args:
        found: the cost at each.
        recent: work given to each lately; the least decides where there is no key.
        key: what names the conversation; None: it has no name.
        names: of all replicas.
    """
    best = np.flatnonzero(found == found.min())
    if len(best) == 1:
        return int(best[0])
    if key is None:
        return int(best[np.argmin(recent[best])])
    by_name = {names[int(index)]: int(index) for index in best}
    return by_name[rendezvous(key, by_name)]
