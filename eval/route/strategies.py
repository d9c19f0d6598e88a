"""Routers that are compared, behind one interface: the usual ones, and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sluice.backend.router import Prompt, Route, Router, RouterSettings
from sluice.backend.router.caches import ReplicaCaches
from sluice.backend.router.policy import rendezvous
from sluice.eval.errors import PolicyError


class Strategy(Protocol):
    """Chooses replicas in a simulation."""

    def choose(self, prompt: Prompt, now_s: float, caches: ReplicaCaches) -> int:
        """Index of the replica that gets the request; `caches` are what replicas really hold."""
        ...

    def begun(self, replica: int) -> None:
        """The replica's answer to the request that it was given longest ago has begun."""
        ...


class RoundRobin:
    """One after the other."""

    def __init__(self, num_replicas: int) -> None:
        self._num_replicas, self._next = num_replicas, -1

    def choose(self, prompt: Prompt, now_s: float, caches: ReplicaCaches) -> int:
        """See `Strategy`."""
        self._next = (self._next + 1) % self._num_replicas
        return self._next

    def begun(self, replica: int) -> None:
        """See `Strategy`."""


class LeastLoaded:
    """The one with the fewest requests that wait for their first token; of equal ones any."""

    def __init__(self, num_replicas: int) -> None:
        self._num_waiting = np.zeros(num_replicas)
        self._draw = np.random.default_rng(0)

    def choose(self, prompt: Prompt, now_s: float, caches: ReplicaCaches) -> int:
        """See `Strategy`."""
        index = int(self._draw.choice(np.flatnonzero(self._num_waiting == self._num_waiting.min())))
        self._num_waiting[index] += 1
        return index

    def begun(self, replica: int) -> None:
        """See `Strategy`."""
        self._num_waiting[replica] -= 1


class Hash:
    """Rendezvous hash of the conversation's first part that is its own."""

    def __init__(self, num_replicas: int) -> None:
        self._names = [str(index) for index in range(num_replicas)]
        self._chosen: dict[bytes, int] = {}

    def choose(self, prompt: Prompt, now_s: float, caches: ReplicaCaches) -> int:
        """See `Strategy`."""
        if prompt.key not in self._chosen:
            self._chosen[prompt.key] = int(rendezvous(prompt.key, self._names))
        return self._chosen[prompt.key]

    def begun(self, replica: int) -> None:
        """See `Strategy`."""


class Ours:
    """The proxy's router; `exact` where replicas publish what they hold."""

    def __init__(self, num_replicas: int, settings: RouterSettings, *, is_exact: bool = False) -> None:
        self._router = Router([str(index) for index in range(num_replicas)], settings)
        self._routes: list[list[Route]] = [[] for _ in range(num_replicas)]
        self._is_exact = is_exact

    def choose(self, prompt: Prompt, now_s: float, caches: ReplicaCaches) -> int:
        """See `Strategy`."""
        route = self._router.route(prompt, now_s, held=caches.cached(prompt) if self._is_exact else None)
        index = int(route.replica)
        self._routes[index].append(route)
        return index

    def begun(self, replica: int) -> None:
        """See `Strategy`."""
        self._router.begun(self._routes[replica].pop(0))


@dataclass(frozen=True, slots=True)
class Make:
    """How a strategy is made."""

    name: str
    make: Callable[[int, RouterSettings], Strategy]
    is_ours: bool = False
    """Whether it is the proxy's, so that its weights matter."""


TUNABLE = ("prefill_weight", "fair_share", "pull", "recent_s", "request_tokens")
"""Fields of `RouterSettings` that weigh one thing against another."""

STRATEGIES: Sequence[Make] = (
    Make("round robin", lambda num, _: RoundRobin(num)),
    Make("least loaded", lambda num, _: LeastLoaded(num)),
    Make("hash", lambda num, _: Hash(num)),
    Make("sluice", Ours, is_ours=True),
    Make("sluice, KV events", lambda num, settings: Ours(num, settings, is_exact=True), is_ours=True),
)


def strategy(name: str) -> Make:
    """Find a strategy by its name.

    Raises:
        PolicyError: there is none.
    """
    for known in STRATEGIES:
        if known.name == name:
            return known
    raise PolicyError(f"unknown router {name!r}; known are {', '.join(repr(known.name) for known in STRATEGIES)}")
