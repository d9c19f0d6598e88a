"""The router's edge: asks replicas for health, hears what they hold, shares with other proxies; decides nothing itself.

Requests are sent by its caller, which says how they went. What is learned here never holds up a request: a source that
fails leaves the router with what it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import msgspec
import numpy as np

from sluice.backend.errors import RouterError
from sluice.backend.metrics import backend_metrics
from sluice.backend.router.block_index import BlockIndex, ConversationBlocks
from sluice.backend.router.kv_events import KvEventSubscriber
from sluice.backend.router.placements import Placements
from sluice.backend.router.policy import RouterSettings, Tokens
from sluice.backend.router.prompt import Prompt
from sluice.backend.router.router import Route, Router

_TOKENIZED_KEYS = ("model", "messages", "tools", "prompt", "chat_template_kwargs")
_MAX_LEARNING = 64
_MAX_TIMEOUTS = 3
"""So many questions for health in a row may go unanswered before a replica is taken to be gone."""


class _Tokenized(msgspec.Struct):
    """What `/tokenize` answers."""

    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Replica:
    """One server among several that serve the same model."""

    url: str
    """Origin, without `/v1`; its name for all proxies."""
    kv_events: str | None = None
    """Where it publishes its KV events (`tcp://host:port`, `ipc:///path`); None: it does not."""
    health_path: str = "/health"
    """What answers 200 while it is well; `/healthz` for the embedded engine."""


class ReplicaSet:
    """Replicas, and a router over them that is kept informed.

    Args:
        replicas: at least one.
        settings: of the router.
        placements: shared with other proxies; None: there are none.
        check_s: time between two questions for health, in seconds.
        health_timeout_s: longest wait for their answers, in seconds.
        on_change: called with a line when a replica is ejected or admitted.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        settings: RouterSettings | None = None,
        *,
        placements: Placements | None = None,
        check_s: float = 2.0,
        health_timeout_s: float = 5.0,
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        self.replicas = {replica.url: replica for replica in replicas}
        self.router = Router([replica.url for replica in replicas], settings)
        self.index = BlockIndex()
        self.blocks = ConversationBlocks()
        self._placements = placements
        self._check_s = check_s
        self._on_change = on_change or (lambda _: None)
        self._tasks: list[asyncio.Task[None]] = []
        self._hearing: dict[str, asyncio.Task[None]] = {}
        self._num_timeouts = dict.fromkeys(self.replicas, 0)
        self._learning: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(health_timeout_s), trust_env=False)

    async def start(self) -> None:
        """Ask each replica once, and keep asking and hearing from then on."""
        await asyncio.gather(*(self._check(replica) for replica in self.replicas.values()))
        self._tasks = [asyncio.create_task(self._watch(replica)) for replica in self.replicas.values()]
        for replica in self.replicas.values():
            self._hear_anew(replica)
        if self._placements is not None:
            self._tasks.append(asyncio.create_task(self._share(self._placements)))

    async def aclose(self) -> None:
        """Stop all of that. Idempotent."""
        tasks = [*self._tasks, *self._hearing.values(), *self._learning]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks = []
        await self._client.aclose()

    async def choose(self, prompt: Prompt | None, *, exclude: Collection[str] = ()) -> Route:
        """Choose a replica for a request and count it as queued there; `begun` has to follow.

        Raises:
            NoReplicaError: none is left.
        """
        placed = await self._placements.find(prompt) if self._placements is not None and prompt is not None else None
        held = self.held(prompt) if prompt is not None else None
        route = self.router.route(prompt, time.monotonic(), exclude=exclude, held=held, placed=placed)
        if self._placements is not None and prompt is not None:
            self._spawn(self._placements.put(prompt, route.replica))
        return route

    def begun(self, route: Route, body: bytes = b"") -> None:
        """The answer has begun, or there will be none; `body` (the request's) lets its blocks be learned."""
        self.router.begun(route)
        if body and route.prompt is not None and self.index.block_tokens(route.replica) is not None:
            self._spawn(self._learn(route.replica, route.prompt, body))

    def lost(self, replica: str) -> None:
        """A replica refused or dropped a connection: it gets nothing until it is found well again."""
        self._set_up(replica, False, "dropped a connection")

    def held(self, prompt: Prompt) -> Tokens | None:
        """Tokens of the prompt, as estimated, that each replica holds by its own account, in order; None: not known."""
        known = self.blocks.find(prompt)
        if known is None:
            return None
        digests, scale = known
        found: Tokens = np.zeros(len(self.replicas))
        for number, url in enumerate(self.replicas):
            block_tokens = self.index.block_tokens(url)
            if block_tokens is None or not self.index.is_complete(url):
                return None  # of one of them it is not known: what is remembered is the better account
            found[number] = self.index.match(url, digests) * block_tokens * scale
        return found

    async def _watch(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            await self._check(replica)

    async def _check(self, replica: Replica) -> None:
        is_up, why = False, ""
        try:
            status = (await self._client.get(f"{replica.url}{replica.health_path}")).status_code
            is_up, why = status == 200, f"answered {status} on {replica.health_path}"
            self._num_timeouts[replica.url] = 0
        except httpx.TimeoutException:
            # Under load it may be slow to say that it is well, and leaving it out loses what it has cached.
            self._num_timeouts[replica.url] += 1
            if self._num_timeouts[replica.url] < _MAX_TIMEOUTS:
                return
            why = f"did not answer {_MAX_TIMEOUTS} times"
        except httpx.HTTPError as error:
            why = f"does not answer ({type(error).__name__})"
        is_new = is_up and (not self.router.is_up(replica.url) or not self._tasks)
        self._set_up(replica.url, is_up, why)
        if is_new:
            with contextlib.suppress(httpx.HTTPError):
                told = backend_metrics((await self._client.get(f"{replica.url}/metrics")).text)
                if told.kv_capacity_tokens is not None:
                    self.router.set_capacity(replica.url, told.kv_capacity_tokens)

    def _set_up(self, url: str, is_up: bool, why: str) -> None:
        if self.router.is_up(url) != is_up:
            self.router.set_up(url, is_up)
            if is_up and self._tasks:
                self._hear_anew(self.replicas[url])
            self._on_change(f"replica {url} is used again" if is_up else f"replica {url} is left out: it {why}")

    def _hear_anew(self, replica: Replica) -> None:
        """Hear a replica's events from the first that it still has: those of a run that died say nothing."""
        if (before := self._hearing.pop(replica.url, None)) is not None:
            before.cancel()
        self.index.clear(replica.url)
        if replica.kv_events is not None:
            self._hearing[replica.url] = asyncio.create_task(self._hear(replica.url, replica.kv_events))

    async def _hear(self, url: str, endpoint: str) -> None:
        try:
            await KvEventSubscriber(endpoint, partial(self.index.apply, url), partial(self.index.lost, url)).run()
        except RouterError as error:
            self._on_change(str(error))

    async def _share(self, placements: Placements) -> None:
        while True:
            self.router.set_elsewhere(await placements.share(self.router.queued()))
            await asyncio.sleep(1.0)

    async def _learn(self, url: str, prompt: Prompt, body: bytes) -> None:
        """Have the replica say which tokens the prompt is, and remember its blocks."""
        block_tokens = self.index.block_tokens(url)
        with contextlib.suppress(httpx.HTTPError, msgspec.DecodeError):
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            wanted = {key: fields[key] for key in _TOKENIZED_KEYS if key in fields}
            answer = await self._client.post(
                f"{url}/tokenize", content=msgspec.json.encode(wanted), headers={"content-type": "application/json"}
            )
            answer.raise_for_status()
            if block_tokens is not None:
                found = msgspec.json.decode(answer.content, type=_Tokenized)
                self.blocks.learn(prompt, found.tokens, block_tokens)

    def _spawn(self, work: Any) -> None:
        """Run something beside; what is too much is left out."""
        if len(self._learning) >= _MAX_LEARNING:
            work.close()
            return
        task = asyncio.create_task(work)
        self._learning.add(task)
        task.add_done_callback(self._learning.discard)
