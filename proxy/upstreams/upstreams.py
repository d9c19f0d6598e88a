"""All upstreams of one proxy: which serves a model, and sending a request there, again or elsewhere where that is safe.

Decisions are plain functions beside (`retries.py`, `models.py`, `addressing.py`); here they meet sockets and clocks.
Nothing is sent again once an answer's head went to the client: `send` returns at the head.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sluice.proxy.error_table import rendering_of
from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header
from sluice.proxy.log import fields, logger
from sluice.proxy.upstreams.addressing import Addressed, Addressing
from sluice.proxy.upstreams.answers import RoutedAnswer, hold
from sluice.proxy.upstreams.limits import HttpLimits
from sluice.proxy.upstreams.listing import list_models
from sluice.proxy.upstreams.managed import NOTICED_S, BackendStatus, explained, may_be_down
from sluice.proxy.upstreams.member import Member, make_member
from sluice.proxy.upstreams.metrics import UpstreamMetrics
from sluice.proxy.upstreams.models import Routing
from sluice.proxy.upstreams.retries import (
    FAILED_STATUSES,
    RETRIED_STATUSES,
    Policy,
    asked_wait_s,
    forbids_retry,
    is_retried_error,
    may_fall_back,
    retry_wait_s,
    speaks_against_upstream,
)
from sluice.proxy.upstreams.settings import DEFAULT_UPSTREAM, UpstreamSettings
from sluice.proxy.upstreams.types import Answer, Target, Translator
from sluice.proxy.wire import Outgoing, WireName

if TYPE_CHECKING:
    from sluice.backend.router.placements import Placements


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of asking one upstream."""

    upstream: Member
    request: Addressed
    num_sends: int
    answer: Answer | None
    error: UpstreamError | None
    may_fall_back: bool


class Upstreams:
    """The upstreams of one proxy.

    Args:
        upstreams: their settings, in the order in which their patterns count. At least one.
        limits: how long each step may take, unless an upstream says otherwise.
        policy: how failures are dealt with.
        cache_ttl_s: life of their prompt caches, in seconds; None takes what is known of them.
        translator: puts requests into formats that an upstream speaks; None sends them as they came.
        metrics: counts what was sent again.
        placements: where conversations were sent, shared with other proxies; None: there are none.
        backend: what is known of the backend that this proxy runs as its default upstream; None: it runs none.
        draw: random numbers in [0, 1).
    """

    def __init__(
        self,
        upstreams: Sequence[UpstreamSettings],
        *,
        limits: HttpLimits | None = None,
        policy: Policy | None = None,
        cache_ttl_s: float | None = None,
        translator: Translator | None = None,
        metrics: UpstreamMetrics | None = None,
        placements: Placements | None = None,
        backend: BackendStatus | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy = policy or Policy()
        self._routing = Routing(upstreams)
        self._translator = translator
        self._addressing = Addressing(translator)
        self._metrics = metrics or UpstreamMetrics()
        self._draw = draw
        self._placements = placements
        self._backend = backend
        self._upstreams = {
            settings.name: make_member(settings, limits or HttpLimits(), policy, cache_ttl_s, placements)
            for settings in upstreams
        }
        for name in self._upstreams:
            self._metrics.set_open(name, is_open=False)

    @property
    def names(self) -> list[str]:
        """Names of all upstreams."""
        return list(self._upstreams)

    @property
    def local_urls(self) -> dict[str, str]:
        """Origins of the self-hosted ones by name; of one with replicas each under a name of its own."""
        found: dict[str, str] = {}
        for name, upstream in self._upstreams.items():
            if not upstream.target.is_local:
                continue
            replicas = [replica.removesuffix(upstream.settings.known.base) for replica in upstream.settings.replicas]
            found |= {f"{name}/{index}": url for index, url in enumerate(replicas)} or {name: upstream.target.origin}
        return found

    def resolve(self, model: str) -> Target:
        """Say which upstream serves a model; an empty name stands for requests that name none.

        Raises:
            UnknownModelError: none does.
        """
        return self._upstreams[self._routing.find(model)].target

    def speaking(self, wire: WireName | None) -> Target:
        """The upstream for a request that names no model, on a route that belongs to a format, or to none.

        The one that serves such requests, unless it does not speak the format and another does.
        """
        default = self.resolve("")
        if wire is None or wire in default.wires:
            return default
        targets = (upstream.target for upstream in self._upstreams.values())
        return next((target for target in targets if wire in target.wires), default)

    def target(self, name: str) -> Target:
        """The upstream of this name, which an answer says it came from."""
        return self._upstreams[name].target

    async def send(self, target: Target, outgoing: Outgoing) -> RoutedAnswer:
        """Send a request to an upstream, or, where that certainly has not worked on it, to its fallbacks.

        An upstream that failed again and again is passed over while another can be asked, and tried all the same
        where none can: no request fails that could have been served.

        Args:
            target: what `resolve` said.
            outgoing: the request. It is sent byte for byte unless the upstream needs another name for the model or
                another format.

        Returns:
            The answer, its body not yet read. Where none serves the request, the first refusal.

        Raises:
            UpstreamError: no upstream answered; the first one's (BackendDownError, where it is our own backend).
            ForeignCredentialError: the credential belongs elsewhere.
        """
        primary = self._upstreams[target.name]
        outcomes = await self._ask_in_turn(primary, outgoing)
        chosen = outcomes[-1]
        if chosen.may_fall_back:
            chosen = next((outcome for outcome in outcomes if outcome.answer is not None), outcomes[0])
        for outcome in outcomes:
            if outcome.answer is not None and outcome is not chosen:
                outcome.answer.close()
        if chosen.answer is None:
            assert chosen.error is not None
            raise await self._explained(chosen.upstream.target.name, chosen.error)
        answer = chosen.answer
        if (spoken := chosen.request.translated_to) is not None:
            assert self._translator is not None
            assert outgoing.wire is not None
            try:
                answer = self._translator.answer(
                    outgoing.wire, spoken, answer, stream=outgoing.stream, request=outgoing.body
                )
            except BaseException:
                answer.close()
                raise
        num_sends = sum(outcome.num_sends for outcome in outcomes)
        return RoutedAnswer(answer, chosen.upstream.target.name, num_sends - 1)

    async def models(self, path: str, headers: Sequence[Header]) -> Answer:
        """List the models of all upstreams; of a single one, pass its own answer on.

        Raises:
            UpstreamError: no upstream answered; the first one's.
        """
        everyone = list(self._upstreams.values())
        if len(everyone) == 1:
            return await self.send(everyone[0].target, Outgoing("GET", path, headers))
        return await list_models(everyone, headers, self._addressing, self._routing)

    async def ping(self, name: str) -> None:
        """Return once an upstream can serve.

        Raises:
            UpstreamError: it does not answer, or says that it cannot.
        """
        upstream = self._upstreams[name]
        health = upstream.settings.known.health
        path = health if health is not None else upstream.settings.known.base + "/models"
        try:
            await upstream.http.ping(path, must_be_ok=health is not None)
        except UpstreamError as error:
            raise await self._explained(name, error) from None

    async def aclose(self) -> None:
        """Close all connections."""
        for upstream in self._upstreams.values():
            await upstream.http.aclose()
        if self._placements is not None:
            await self._placements.aclose()

    async def _ask_in_turn(self, primary: Member, outgoing: Outgoing) -> list[_Outcome]:
        """Ask an upstream and then its fallbacks, until there is an answer to go by; what came of each."""
        outcomes: list[_Outcome] = []
        chain = [primary, *(self._upstreams[name] for name in primary.settings.fallback)]
        for position, upstream in enumerate(chain):
            request = self._addressing.address(upstream, outgoing, primary)
            if request is None or not upstream.breaker.admits():
                continue
            if upstream is not primary:
                self._metrics.fell_back(primary.target.name, upstream.target.name)
            has_fallback = position + 1 < len(chain)
            # What is only tried out is tried once.
            max_retries = 0 if upstream.breaker.is_open else upstream.max_retries
            outcomes.append(await self._ask(upstream, outgoing.method, request, max_retries, has_fallback))
            if not outcomes[-1].may_fall_back:
                return outcomes
        if not outcomes:
            request = self._addressing.address(primary, outgoing, primary)
            assert request is not None
            outcomes.append(await self._ask(primary, outgoing.method, request, 0, has_fallback=False))
        return outcomes

    async def _ask(
        self, upstream: Member, method: str, request: Addressed, max_retries: int, has_fallback: bool
    ) -> _Outcome:
        """Ask one upstream, again where that is safe and worth it."""
        num_retries = 0
        while True:
            answer: Answer | None = None
            error: UpstreamError | None = None
            try:
                answer = await upstream.http.send(method, request.path, request.headers, request.body)
            except UpstreamError as caught:
                error = caught
                if speaks_against_upstream(error):
                    self._note(upstream, is_good=False)
                reason = rendering_of(error).code
                goes_on = may_fall_back(error)
                max_retries += error.was_stale and num_retries == 0  # nothing was asked of it: none is spent on that
                wait_s = None
                if num_retries < max_retries and is_retried_error(error):
                    wait_s = 0.0 if error.was_stale else self._wait_s(num_retries)
            else:
                self._note(upstream, is_good=answer.status not in FAILED_STATUSES)
                reason = str(answer.status)
                goes_on = answer.status in RETRIED_STATUSES
                is_last = num_retries == max_retries
                if not goes_on or (is_last and not has_fallback):
                    return _Outcome(upstream, request, num_retries + 1, answer, None, may_fall_back=goes_on)
                answer = held = await hold(answer)
                headers = [(name.lower(), value) for name, value in held.headers]
                wait_s = None
                if not is_last and not forbids_retry(headers, held.body):
                    wait_s = self._wait_s(num_retries, headers)
            if wait_s is None:
                return _Outcome(upstream, request, num_retries + 1, answer, error, may_fall_back=goes_on)
            self._metrics.retried(upstream.target.name, reason)
            await asyncio.sleep(wait_s)
            num_retries += 1

    async def _explained(self, name: str, error: UpstreamError) -> UpstreamError:
        """The error, or what more is known of it where that upstream is the backend that we run."""
        if self._backend is None or name != DEFAULT_UPSTREAM or not may_be_down(error):
            return error
        await asyncio.sleep(NOTICED_S)
        return explained(error, self._backend.kind, self._backend.read(), time.time())

    def _wait_s(self, num_retries: int, headers: Sequence[Header] = ()) -> float | None:
        asked_s = asked_wait_s(headers, time.time())
        return retry_wait_s(num_retries, self._draw(), asked_s, self._policy.max_wait_s)

    def _note(self, upstream: Member, *, is_good: bool) -> None:
        """Tell the breaker, and whoever watches it."""
        breaker, name = upstream.breaker, upstream.target.name
        was_open = breaker.is_open
        if is_good:
            breaker.succeeded()
        else:
            breaker.failed()
        if breaker.is_open != was_open:
            self._metrics.set_open(name, is_open=breaker.is_open)
            logger.warning(fields("upstream_passed_over" if breaker.is_open else "upstream_is_back", upstream=name))
