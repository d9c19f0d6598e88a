"""The router: what it knows of each replica (prefixes, work, health), and the decision made on it.

Everything here is in memory and at once; who hears of events, asks for health and shares with other proxies calls it.
Times are given to it, so that a simulation can run it as fast as it likes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sluice.backend.errors import NoReplicaError
from sluice.backend.router.caches import ReplicaCaches
from sluice.backend.router.policy import RouterSettings, Tokens, choose, costs
from sluice.backend.router.prompt import Prompt

_RESCALE_AT = math.log(1e12)


@dataclass(slots=True)
class Route:
    """One request at one replica, from the choice to the end."""

    replica: str
    prompt: Prompt | None
    num_cached_tokens: int
    """Of the prompt, as far as is known."""
    work_tokens: float
    """What it was counted as."""
    is_queued: bool = True


class Router:
    """Chooses a replica for each request.

    Args:
        names: the replicas; their names are what proxies agree on, so give all proxies the same.
        settings: how things are weighed.
    """

    def __init__(self, names: Sequence[str], settings: RouterSettings | None = None) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"replicas need names that differ: {list(names)!r}")
        self.names = tuple(names)
        self.settings = settings or RouterSettings()
        self._index = {name: index for index, name in enumerate(self.names)}
        self._caches = ReplicaCaches(len(names), self.settings.capacity_tokens, self.settings.block_tokens)
        self._queued: Tokens = np.zeros(len(self.names))
        self._elsewhere: Tokens = np.zeros(len(self.names))
        self._recent: Tokens = np.zeros(len(self.names))  # scaled by exp(time / recent_s), so that decay costs nothing
        self._began_s: float | None = None
        self._is_up = np.ones(len(self.names), dtype=np.bool_)

    def route(
        self,
        prompt: Prompt | None,
        now_s: float,
        *,
        exclude: Collection[str] = (),
        held: Tokens | None = None,
        placed: tuple[str, int] | None = None,
    ) -> Route:
        """Choose a replica and count the request as queued there.

        Args:
            prompt: None where none is to be seen: the least loaded replica is taken.
            now_s: any steady clock, in seconds.
            exclude: replicas that have failed this request already.
            held: tokens of the prompt that each replica, in the order of their names, is known to hold; where given, it
                stands for what is remembered.
            placed: where another proxy has sent this conversation last, and how many of these tokens it had then.

        Raises:
            NoReplicaError: none is left.
        """
        is_up = self._is_up.copy()
        for name in exclude:
            is_up[self._index[name]] = False
        if not is_up.any():
            # A replica that was found dead may have come back since; better to try it than to refuse.
            is_up = np.array([name not in exclude for name in self.names], dtype=np.bool_)
            if not is_up.any():
                raise NoReplicaError(f"none of {len(self.names)} replicas answers")
        cached = self._cached(prompt, held, placed)
        num_tokens = prompt.num_tokens if prompt else 0
        recent = self._recent_at(now_s)
        found = costs(num_tokens, cached, self._queued + self._elsewhere, recent, is_up, self.settings)
        index = choose(found, recent, prompt.key if prompt else None, self.names)
        work = max(0.0, num_tokens - cached[index]) + self.settings.request_tokens
        self._queued[index] += work
        self._recent[index] += work * self._scale(now_s)
        if prompt is not None:
            self._caches.insert(index, prompt)
        return Route(self.names[index], prompt, int(cached[index]), work)

    def begun(self, route: Route) -> None:
        """The answer has begun, or there will be none: nothing is queued any more. Idempotent."""
        if route.is_queued:
            route.is_queued = False
            index = self._index[route.replica]
            self._queued[index] = max(0.0, self._queued[index] - route.work_tokens)

    def set_up(self, name: str, is_up: bool) -> None:
        """Admit or eject a replica; one that is ejected is taken to have lost its cache."""
        index = self._index[name]
        if self._is_up[index] and not is_up:
            self._caches.clear(index)
        self._is_up[index] = is_up

    def is_up(self, name: str) -> bool:
        """Whether the replica is used."""
        return bool(self._is_up[self._index[name]])

    def set_capacity(self, name: str, capacity_tokens: int) -> None:
        """Tell the room of a replica's KV cache, in tokens."""
        self._caches.resize(self._index[name], capacity_tokens)

    def set_elsewhere(self, queued: Mapping[str, float]) -> None:
        """Work queued at replicas by other proxies, in tokens; replicas not named have none."""
        self._elsewhere = np.array([queued.get(name, 0.0) for name in self.names])

    def queued(self) -> dict[str, float]:
        """Work queued at each replica by this proxy, in tokens."""
        return dict(zip(self.names, self._queued.tolist(), strict=True))

    def _cached(self, prompt: Prompt | None, held: Tokens | None, placed: tuple[str, int] | None) -> Tokens:
        if prompt is None:
            return np.zeros(len(self.names))
        if held is not None:
            return np.minimum(held, prompt.num_tokens)
        cached = self._caches.cached(prompt)
        if placed is not None and placed[0] in self._index:
            index = self._index[placed[0]]
            cached[index] = max(cached[index], placed[1])
        return cached

    def _scale(self, now_s: float) -> float:
        if self._began_s is None:
            self._began_s = now_s
        age = (now_s - self._began_s) / self.settings.recent_s
        if age > _RESCALE_AT:  # asked of the exponent: after some idle days its exponential is beyond floats
            self._recent *= math.exp(-age)
            self._began_s, age = now_s, 0.0
        return math.exp(age)

    def _recent_at(self, now_s: float) -> Tokens:
        scale = self._scale(now_s)
        return self._recent / scale
