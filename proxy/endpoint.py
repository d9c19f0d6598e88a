"""One request of any wire: body in, smaller body out to the upstream, its answer back as it comes.

A bare ASGI endpoint: frameworks decode bodies and wrap streams, which is what costs time here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from starlette.types import Receive, Scope, Send

from sluice.compressor import Mode
from sluice.proxy.access import STATE_KEY, ProxyKey
from sluice.proxy.answers import SourcedAnswer, Unshared, answer_key, may_keep, may_take
from sluice.proxy.answers.tapped import Tapped
from sluice.proxy.body import Body
from sluice.proxy.charging import Count, budgeted_key, charge, count_sent, name_and_count
from sluice.proxy.error_table import level_of
from sluice.proxy.exchange import Exchange
from sluice.proxy.headers import Header, find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter import CLIENT_GONE_STATUS, Source
from sluice.proxy.meter.breakpoints import breakpoints_of
from sluice.proxy.metering import arrived_of, turn_of
from sluice.proxy.outgoing import outgoing_of
from sluice.proxy.overflow import MAX_ERROR_BYTES, overflow_limit
from sluice.proxy.prepare import mode_of, prepare, shrink
from sluice.proxy.prepared import Prepared
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.relay import Relayed, relay, unless_gone
from sluice.proxy.services import Services
from sluice.proxy.upstreams import HeldAnswer, RoutedAnswer, Target
from sluice.proxy.upstreams.answers import hold_or_begin
from sluice.proxy.upstreams.overflow import OVERFLOW_STATUSES
from sluice.proxy.wire import Outgoing, WireName
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.render_errors import error_headers

_REFUSALS = (400, 422)
"""Statuses by which an upstream says that it cannot read a request, perhaps for what we put into it."""


class Endpoint:
    """The route of a wire, as an ASGI application."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._counting: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        services: Services = scope["app"].state.services
        exchange = Exchange()
        at_s, started_s = time.time(), time.perf_counter()
        error: Exception | None = None
        num_bytes = 0
        try:
            relayed = await self._serve(scope, receive, send, services, exchange)
            status, num_bytes, error = relayed.status, relayed.num_bytes, relayed.error
        except ClientGoneError:
            status = CLIENT_GONE_STATUS
        except Exception as fault:
            error = fault
            if exchange.status is None:
                status = await self._refuse(send, fault, exchange)
            else:
                status = exchange.status  # the answer is left without its end: the server cuts the connection
        total_s = time.perf_counter() - started_s
        await self._meter(scope, services, exchange, status, at_s, total_s)
        if exchange.counting is not None:  # even where the answer did not wait for it
            exchange.counting.add_done_callback(lambda _: services.metrics.count_tokens(exchange.tokens))
        services.metrics.requests.labels(status).inc()
        prepared = exchange.prepared
        if prepared is not None:
            services.metrics.overhead_s.observe(exchange.own_s)
            if prepared.bypass is not None:
                services.metrics.bypasses.labels(prepared.bypass).inc()
        level = level_of(error)
        if logger.isEnabledFor(level):
            key = scope.get("state", {}).get(STATE_KEY)
            line = exchange.line(
                self._wire.name,
                status=status,
                total_s=total_s,
                num_bytes=num_bytes,
                key_id=key.id if key is not None else None,
                error=error,
            )
            logger.log(level, line)

    async def _refuse(self, send: Send, error: Exception, exchange: Exchange) -> int:
        """Tell the client what went wrong; the status that says so."""
        status, body = self._wire.render_error(error)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers += [*error_headers(error), *exchange.headers()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return status

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, services: Services, exchange: Exchange
    ) -> Relayed:
        settings = services.settings
        headers: list[Header] = scope["headers"]
        mode = mode_of(headers, settings.mode)
        raw = await read_body(receive, find(headers, b"content-length"), settings.max_body_bytes)
        read_s = time.perf_counter()
        prepared = exchange.prepared = await prepare(raw, headers, self._wire, mode, services)
        self._count(prepared, services, exchange)
        return await unless_gone(receive, self._forward(scope, send, services, exchange, read_s))

    async def _forward(
        self,
        scope: Scope,
        send: Send,
        services: Services,
        exchange: Exchange,
        read_s: float,
    ) -> Relayed:
        prepared = exchange.prepared
        assert prepared is not None
        outgoing = outgoing_of(scope, prepared, self._wire)
        target = prepared.target or services.upstreams.resolve(outgoing.model)
        exchange.own_s = time.perf_counter() - read_s
        answer = await _ask(services, target, outgoing, prepared, scope["headers"])
        answer = await self._unless_too_long(answer, target, scope, services, exchange)
        if prepared.searching is not None:
            answer = await self._with_searches(answer, target, scope, services, exchange)
        exchange.answer = answer
        answered_s = time.perf_counter()
        try:
            # Counting went on while the upstream worked, so that there is hardly ever anything to wait for.
            if exchange.counting is not None and not exchange.counting.done():
                await asyncio.wait((exchange.counting,), timeout=services.settings.tokens_wait_s)
        except BaseException:
            answer.close()
            raise
        exchange.own_s += time.perf_counter() - answered_s
        exchange.status = answer.status
        ours = [*exchange.headers(), *answer.sluice_headers]
        # The rounds of a search are counted one by one: what the client is told is not their sum.
        tap = None if prepared.searching is not None else exchange.reader(self._wire.name, answer.headers).feed
        return await relay(answer, send, ours, tap=tap, render_event=self._wire.render_event)

    async def _meter(
        self, scope: Scope, services: Services, exchange: Exchange, status: int, at_s: float, total_s: float
    ) -> None:
        """Record the turn, and charge it to its key."""
        if exchange.prepared is None:
            return
        key, answer = scope.get("state", {}).get(STATE_KEY), exchange.answer
        served_by = services.upstreams.target(answer.upstream) if answer is not None and answer.upstream else None
        turn = turn_of(
            exchange,
            wire=self._wire.name,
            key_id=key.id if key is not None else None,
            at_s=at_s,
            status=status,
            total_s=total_s,
            served_by=served_by,
            traceparent=find(scope["headers"], b"traceparent"),
        )
        if turn is not None:
            services.meter.record(turn, arrived_of(exchange.prepared, self._wire.dialect))
            services.watch.see(exchange.prepared, self._wire.name, at_s)
        if (payer := budgeted_key(scope)) is not None:
            await self._charge(payer, scope["headers"], services, exchange, status, served_by)

    async def _charge(
        self,
        key: ProxyKey,
        headers: Sequence[Header],
        services: Services,
        exchange: Exchange,
        status: int,
        served_by: Target | None,
    ) -> None:
        """Charge the answer to a key with budgets, unless no upstream was asked for it alone."""
        prepared, answer = exchange.prepared, exchange.answer
        assert prepared is not None
        if answer is not None and answer.source is not Source.UPSTREAM:
            return
        parsed = prepared.parsed
        count: Count | None = None
        model = parsed.model if parsed is not None else ""
        if status < 400 or status == CLIENT_GONE_STATUS:
            if parsed is not None and parsed.spans is not None:
                count = partial(self._count_sent, services, exchange, parsed)
            else:
                named, count = await name_and_count(services, prepared.body, headers)
                model = model or named or ""
        target = served_by or prepared.target
        await charge(services, key, usage=exchange.usage, count=count, model=model, target=target)

    async def _count_sent(self, services: Services, exchange: Exchange, parsed: Body) -> int:
        """The tokens that were sent, as they were counted, or else counted now."""
        assert exchange.prepared is not None
        if exchange.counting is not None:
            await asyncio.wait((exchange.counting,))
        if exchange.tokens is not None and exchange.tokens[1]:
            return exchange.tokens[1]
        return await count_sent(services.counter, self._wire, parsed, exchange.prepared.messages_out)

    async def _unless_too_long(
        self, answer: SourcedAnswer, target: Target, scope: Scope, services: Services, exchange: Exchange
    ) -> SourcedAnswer:
        """Where the upstream refused a request as too long, make it shorter and ask once more."""
        assert exchange.prepared is not None
        if answer.status not in OVERFLOW_STATUSES or exchange.prepared.compressed is None:
            return answer
        held = await hold_or_begin(answer, max_bytes=MAX_ERROR_BYTES)
        refusal = Unshared(RoutedAnswer(held, answer.upstream, answer.num_retries))
        limit = overflow_limit(held) if isinstance(held, HeldAnswer) else None
        if limit is None:
            return refusal
        num_counted = exchange.tokens[1] if exchange.tokens is not None else None
        shorter = await shrink(exchange.prepared, scope["headers"], self._wire, services, limit, num_counted)
        if shorter is None:
            return refusal
        exchange.prepared = shorter
        if exchange.counting is not None:
            self._count(shorter, services, exchange)
        taken = await services.upstreams.send(target, outgoing_of(scope, shorter, self._wire))
        if limit and taken.status < 300 and shorter.parsed is not None:
            # Told by the upstream and borne out: an error that quotes the request may name any number.
            services.windows.named(target.origin, shorter.parsed.model, limit)
        return Unshared(taken)

    async def _with_searches(
        self, answer: SourcedAnswer, target: Target, scope: Scope, services: Services, exchange: Exchange
    ) -> SourcedAnswer:
        """Answer the calls of the search tool, and ask on; where the upstream refuses the request, ask without it."""
        prepared = exchange.prepared
        assert prepared is not None
        assert prepared.searching is not None
        assert services.search_tool is not None
        mode = prepared.mode
        headers = [header for header in scope["headers"] if header[0] != b"content-encoding"]

        def counted(answer: SourcedAnswer) -> SourcedAnswer:
            return Tapped(answer, exchange.reader(self._wire.name, answer.headers).feed)

        if answer.status in _REFUSALS:
            answer.close()
            logger.warning(fields("search_tool_refused", status=answer.status))
            exchange.prepared = await prepare(
                prepared.searching.sent.raw, headers, self._wire, mode, services, searches=False
            )
            self._count(exchange.prepared, services, exchange)
            outgoing = outgoing_of(scope, exchange.prepared, self._wire)
            return counted(await _ask(services, target, outgoing, exchange.prepared, headers))

        async def send(body: bytes) -> SourcedAnswer:
            again = await prepare(body, headers, self._wire, mode, services, searches=False)
            round_ = await _ask(services, target, outgoing_of(scope, again, self._wire), again, headers)
            return counted(await self._unless_too_long(round_, target, scope, services, Exchange(again)))

        return await services.search_tool.answer(counted(answer), prepared.searching, send)

    def _count(self, prepared: Prepared, services: Services, exchange: Exchange) -> None:
        """Start counting tokens, of what is sent now alone: a refused body's counts say nothing of the next one.

        In mode `off` nothing is counted: nothing is dropped, and what went out is in the upstream's own usage.
        """
        exchange.counting, exchange.tokens, exchange.breakpoints = None, None, None
        parsed, dialect = prepared.parsed, self._wire.dialect
        if prepared.mode is Mode.OFF or parsed is None or dialect is None or parsed.spans is None:
            return

        async def count() -> None:
            try:
                counts = await services.counter.count(parsed.model, dialect, parsed.messages, prepared.messages_out)
            except Exception as error:  # counts are for show: none are better than no answer
                logger.error(fields("token_count_failed", error=where(error)))
                return
            if exchange.prepared is not prepared:
                return
            exchange.tokens = (counts[0], counts[1])
            if self._wire.name is WireName.MESSAGES:
                marks = await asyncio.to_thread(breakpoints_of, prepared.body)
                if exchange.prepared is prepared:
                    exchange.breakpoints = marks

        task = exchange.counting = asyncio.create_task(count())
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)


async def _ask(
    services: Services, target: Target, outgoing: Outgoing, prepared: Prepared, headers: Sequence[Header]
) -> SourcedAnswer:
    """Get the answer: from the prompt cache where that is on and the request qualifies, else from the upstream."""
    answers = services.answers
    if answers is not None and prepared.tenant and may_keep(headers):
        key = answer_key(outgoing, tenant=prepared.tenant, origin=target.origin)
        if key is not None and outgoing.wire is not None:
            return await answers.fetch(
                key, outgoing.wire, lambda: services.upstreams.send(target, outgoing), may_take=may_take(headers)
            )
    return Unshared(await services.upstreams.send(target, outgoing))
