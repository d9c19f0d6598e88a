"""Replicas with finite KV caches, fed by agents that wait for their answers: an event simulation.

A replica computes prompts one after another and decodes beside it at a steady pace. Its cache is the router's own
`ReplicaCaches` (blocks, least recently used first, a prompt's last blocks first), at its true size. Knows no strategy.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sluice.backend.router import Prompt
from sluice.backend.router.caches import ReplicaCaches
from sluice.backend.router.prefix_cache import PrefixCache
from sluice.eval.route.strategies import Strategy
from sluice.eval.route.workload import Arrivals, Playing, Script, play

_BEGUN, _ASKS = 0, 1
_WARM_UP = 0.2


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica can do."""

    kv_tokens: int = 500_000
    """Room of its KV cache, in tokens."""
    block_tokens: int = 16
    prefill_tokens_per_s: float = 8_000.0
    decode_tokens_per_s: float = 2_000.0
    """Of all streams together; what a generated token counts as work."""
    token_s: float = 0.02
    """Time between two tokens of one stream, in seconds."""


@dataclass(slots=True)
class Outcome:
    """What one strategy came to."""

    prompt_tokens: int = 0
    hit_tokens: int = 0
    bound_tokens: int = 0
    """Hits if every token ever computed anywhere were at hand everywhere: no router and no memory can do better."""
    pooled_tokens: int = 0
    """Hits if all replicas' memory were one cache that each could read."""
    num_requests: int = 0
    busy_s: list[float] = field(default_factory=list)
    """Work done by each replica, in seconds."""
    ttft_s: list[float] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that were not computed again; 0 where there were none."""
        return self.hit_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def of_bound(self) -> float:
        """Hits, as a share of the omniscient bound's; 0 where that has none: where no prompt begins as another does."""
        return self.hit_tokens / self.bound_tokens if self.bound_tokens else 0.0

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that were computed."""
        return self.prompt_tokens - self.hit_tokens

    @property
    def load_spread(self) -> tuple[float, float]:
        """The least and the most loaded replica's work over the mean, less 1."""
        mean = sum(self.busy_s) / len(self.busy_s)
        return min(self.busy_s) / mean - 1, max(self.busy_s) / mean - 1


def simulate(
    scripts: Sequence[Script],
    make: Callable[[], Strategy],
    num_replicas: int,
    *,
    replica: Replica,
    arrivals: Arrivals,
    seed: int,
) -> Outcome:
    """Run one strategy over `num_replicas`.

    Each session has its own seed, so that all strategies see the same conversations and the same gaps. It ends after
    a number of requests, while all sessions are at work; figures are taken after the first fifth of them, when the
    caches are full.
    """
    strategy, outcome = make(), Outcome(busy_s=[0.0] * num_replicas)
    caches = ReplicaCaches(num_replicas, replica.kv_tokens, replica.block_tokens)
    pooled = PrefixCache(replica.kv_tokens * num_replicas, replica.block_tokens)
    everything = PrefixCache(None, replica.block_tokens)
    free_at_s = [0.0] * num_replicas
    num_sessions = num_replicas * arrivals.sessions_per_replica
    sessions = [_Session(scripts, number, seed) for number in range(num_sessions)]
    # (time, what, session or replica): answers that begin come before requests of the same moment.
    events = [(session.draw.uniform(0.0, 60.0), _ASKS, number) for number, session in enumerate(sessions)]
    heapq.heapify(events)
    num_requests = num_replicas * arrivals.requests_per_replica
    number_of_request = 0
    while number_of_request < num_requests:
        now_s, what, number = heapq.heappop(events)
        if what == _BEGUN:
            strategy.begun(number)
            continue
        session = sessions[number]
        prompt, answered = session.prompts()
        index = strategy.choose(prompt, now_s, caches)
        hit = caches.match(index, prompt)
        num_output = answered.num_tokens - prompt.num_tokens
        prefill_s = (prompt.num_tokens - hit) / replica.prefill_tokens_per_s
        begun_s = free_at_s[index] = max(now_s, free_at_s[index]) + prefill_s
        number_of_request += 1
        if number_of_request > num_requests * _WARM_UP:
            outcome.num_requests += 1
            outcome.prompt_tokens += prompt.num_tokens
            outcome.hit_tokens += hit
            outcome.bound_tokens += everything.match(prompt)
            outcome.pooled_tokens += pooled.match(prompt)
            outcome.busy_s[index] += prefill_s + num_output / replica.decode_tokens_per_s
            outcome.ttft_s.append(begun_s - now_s)
        caches.insert(index, answered)
        everything.insert(answered)
        pooled.insert(answered)
        session.go_on()
        heapq.heappush(events, (begun_s, _BEGUN, index))
        next_s = begun_s + num_output * replica.token_s + arrivals.gap_s(session.draw)
        heapq.heappush(events, (next_s, _ASKS, number))
    return outcome


class _Session:
    """One agent, which plays one conversation after another."""

    def __init__(self, scripts: Sequence[Script], number: int, seed: int) -> None:
        self.draw = random.Random(f"{seed}/{number}")  # noqa: S311 - a simulation
        self._scripts, self._number, self._num_played = scripts, number, 0
        self._playing = self._begin()
        # Not all at their beginning: somewhere in their first conversation, as they would be met at any time.
        self._playing.next_turn = self.draw.randrange(len(self._playing.script.requests))

    def prompts(self) -> tuple[Prompt, Prompt]:
        """The prompt of the turn that comes now, and the same with its answer."""
        turn = self._playing.next_turn
        return self._playing.prompt(turn), self._playing.answered(turn)

    def go_on(self) -> None:
        """The turn is done."""
        self._playing.next_turn += 1
        if self._playing.next_turn == len(self._playing.script.requests):
            self._playing = self._begin()

    def _begin(self) -> Playing:
        self._num_played += 1
        salt = self._number.to_bytes(4, "big") + self._num_played.to_bytes(4, "big")
        return play(self._scripts, salt, self.draw)
