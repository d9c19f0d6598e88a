"""One request of any wire: body in, smaller body out to the upstream, its answer back as it comes.

A bare ASGI endpoint: frameworks decode bodies and wrap streams, which is what costs time here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from sluice.compressor import Mode
from sluice.proxy.access.guard import STATE_KEY
from sluice.proxy.answers import SourcedAnswer, Unshared, answer_key, may_keep, may_take
from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header, find, to_upstream
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter import CLIENT_GONE_STATUS, Source, UsageReader, reader_for
from sluice.proxy.meter.breakpoints import Breakpoints, breakpoints_of
from sluice.proxy.meter.reader import readable
from sluice.proxy.metering import arrived_of, turn_of
from sluice.proxy.overflow import OVERFLOW_STATUSES, hold_error, overflow_limit
from sluice.proxy.prepare import Prepared, mode_of, prepare, shrink
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.relay import Relayed, relay, unless_gone
from sluice.proxy.services import Services
from sluice.proxy.upstreams import RoutedAnswer, Target
from sluice.proxy.wire import Outgoing, WireName
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.render_errors import error_headers

DRAFT_HEADER = b"x-sluice-draft"
"""What the bundled backend may propose to itself; it goes to self-hosted upstreams alone."""

_REFUSALS = (400, 422)
"""Statuses by which an upstream says that it cannot read a request, perhaps for what we put into it."""


@dataclass(slots=True)
class Exchange:
    """What is known of one request, for its headers, its log line and its counters."""

    prepared: Prepared | None = None
    own_s: float = 0.0
    """Time that was ours."""
    tokens: tuple[int, int] | None = None
    """Tokens that came in and that were forwarded; None until they are counted."""
    breakpoints: Breakpoints | None = None
    """Where the request marks its prefix to be cached, where its wire has such marks."""
    answer: SourcedAnswer | None = None
    """The answer; None until its head is there."""
    usage: UsageReader | None = None
    """Reads the usage out of the answer."""
    is_answered: bool = False
    """Whether the answer's head is on its way, so that no other can be sent."""

    @property
    def epoch(self) -> str | None:
        """Why earlier messages were rewritten; None where they were not."""
        compressed = self.prepared and self.prepared.compressed
        return compressed.epoch if compressed else None

    def headers(self) -> list[Header]:
        """Headers that tell the client what became of its request."""
        if self.prepared is None:
            return []
        headers = [
            (b"x-sluice-mode", self.prepared.mode.encode()),
            (b"x-sluice-overhead-ms", b"%.2f" % (self.own_s * 1000)),
        ]
        if self.tokens is not None:
            headers.append((b"x-sluice-tokens-in", b"%d" % self.tokens[0]))
            headers.append((b"x-sluice-tokens-out", b"%d" % self.tokens[1]))
        if self.epoch is not None:
            headers.append((b"x-sluice-epoch", self.epoch.encode()))
        if self.prepared.bypass is not None:
            headers.append((b"x-sluice-bypass", self.prepared.bypass.encode()))
        return headers


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
        error: BaseException | None = None
        num_bytes = 0
        try:
            relayed = await self._serve(scope, receive, send, services, exchange)
            status, num_bytes, error = relayed.status, relayed.num_bytes, relayed.error
        except ClientGoneError:
            status = CLIENT_GONE_STATUS
        except Exception as fault:
            if exchange.is_answered:
                raise
            error = fault
            status, body = self._wire.render_error(fault)
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            headers += [*error_headers(fault), *exchange.headers()]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        total_s = time.perf_counter() - started_s
        await self._meter(scope, services, exchange, status, at_s, total_s)
        services.metrics.requests.labels(status).inc()
        prepared = exchange.prepared
        if prepared is not None:
            services.metrics.overhead_s.observe(exchange.own_s)
            if prepared.bypass is not None:
                services.metrics.bypasses.labels(prepared.bypass).inc()
        # A fault of ours, told from a 500 of the upstream's by there being an exception.
        level = logging.ERROR if status == 500 and error is not None else logging.INFO
        level = logging.WARNING if isinstance(error, UpstreamError) else level
        if logger.isEnabledFor(level):
            key = scope.get("state", {}).get(STATE_KEY)
            logger.log(level, _line(self._wire, exchange, status, total_s, num_bytes, error, key and key.id))

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, services: Services, exchange: Exchange
    ) -> Relayed:
        settings = services.settings
        headers: list[Header] = scope["headers"]
        mode = mode_of(headers, settings.mode)
        raw = await read_body(receive, find(headers, b"content-length"), settings.max_body_bytes)
        read_s = time.perf_counter()
        prepared = exchange.prepared = await prepare(raw, headers, self._wire, mode, services)
        counting = self._count(prepared, services, exchange)
        return await unless_gone(receive, self._forward(scope, send, services, exchange, counting, read_s))

    async def _forward(
        self,
        scope: Scope,
        send: Send,
        services: Services,
        exchange: Exchange,
        counting: asyncio.Task[None] | None,
        read_s: float,
    ) -> Relayed:
        prepared = exchange.prepared
        assert prepared is not None
        outgoing = outgoing_of(scope, prepared, self._wire)
        target = prepared.target or services.upstreams.resolve(outgoing.model)
        exchange.own_s = time.perf_counter() - read_s
        answer = await _ask(services, target, outgoing, prepared, scope["headers"])
        if answer.status in OVERFLOW_STATUSES and prepared.compressed is not None:
            answer = await self._unless_too_long(answer, target, scope, services, exchange)
        if prepared.searching is not None:
            answer = await self._with_searches(answer, target, scope, services, exchange)
        exchange.answer = answer
        answered_s = time.perf_counter()
        try:
            # Counting went on while the upstream worked, so that there is hardly ever anything to wait for.
            if counting is not None and not counting.done():
                await asyncio.wait((counting,), timeout=services.settings.tokens_wait_s)
        except BaseException:
            answer.close()
            raise
        exchange.own_s += time.perf_counter() - answered_s
        exchange.is_answered = True
        ours = [*exchange.headers(), *answer.sluice_headers]
        reader = exchange.usage = reader_for(self._wire.name, answer.headers)
        return await relay(answer, send, ours, tap=reader.feed, render_event=self._wire.render_event)

    async def _meter(
        self, scope: Scope, services: Services, exchange: Exchange, status: int, at_s: float, total_s: float
    ) -> None:
        """Record the turn, and charge it to its key."""
        if exchange.prepared is None:
            return
        key, answer = scope.get("state", {}).get(STATE_KEY), exchange.answer
        turn = turn_of(
            exchange.prepared,
            wire=self._wire.name,
            key_id=key.id if key is not None else None,
            at_s=at_s,
            status=status,
            tokens=exchange.tokens,
            usage=exchange.usage.usage() if exchange.usage is not None else None,
            own_s=exchange.own_s,
            total_s=total_s,
            served_by=services.upstreams.target(answer.upstream) if answer is not None and answer.upstream else None,
            source=answer.source if answer is not None else Source.UPSTREAM,
            num_retries=answer.num_retries if answer is not None else 0,
            breakpoints=exchange.breakpoints,
            traceparent=find(scope["headers"], b"traceparent"),
        )
        if turn is not None:
            spent = services.meter.record(turn, arrived_of(exchange.prepared, self._wire.dialect))
            services.watch.see(exchange.prepared, self._wire.name, at_s)
            if key is not None and spent.tokens:
                await services.access.spend(key, tokens=spent.tokens, dollars=spent.dollars)

    async def _unless_too_long(
        self, answer: SourcedAnswer, target: Target, scope: Scope, services: Services, exchange: Exchange
    ) -> SourcedAnswer:
        """Where the upstream refused a request as too long, make it shorter and ask once more."""
        assert exchange.prepared is not None
        held = await hold_error(answer)
        refusal = Unshared(RoutedAnswer(held, answer.upstream, answer.num_retries))
        limit = overflow_limit(held)
        if limit is None:
            return refusal
        num_counted = exchange.tokens[1] if exchange.tokens is not None else None
        shorter = await shrink(exchange.prepared, scope["headers"], self._wire, services, limit, num_counted)
        if shorter is None:
            return refusal
        exchange.prepared = shorter
        return Unshared(await services.upstreams.send(target, outgoing_of(scope, shorter, self._wire)))

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
        if answer.status in _REFUSALS:
            answer.close()
            logger.warning(fields("search_tool_refused", status=answer.status))
            exchange.prepared = await prepare(
                prepared.searching.sent.raw, headers, self._wire, mode, services, searches=False
            )
            outgoing = outgoing_of(scope, exchange.prepared, self._wire)
            return await _ask(services, target, outgoing, exchange.prepared, headers)

        async def send(body: bytes) -> SourcedAnswer:
            again = await prepare(body, headers, self._wire, mode, services, searches=False)
            return await _ask(services, target, outgoing_of(scope, again, self._wire), again, headers)

        return await services.search_tool.answer(answer, prepared.searching, send)

    def _count(self, prepared: Prepared, services: Services, exchange: Exchange) -> asyncio.Task[None] | None:
        """Start counting tokens; the counters get them even where the answer's head does not wait for them.

        In mode `off` nothing is counted: nothing is dropped, and what went out is in the upstream's own usage.
        """
        parsed, dialect = prepared.parsed, self._wire.dialect
        if prepared.mode is Mode.OFF or parsed is None or dialect is None or parsed.spans is None:
            return None

        async def count() -> None:
            try:
                counts = await services.counter.count(parsed.model, dialect, parsed.messages, prepared.messages_out)
            except Exception as error:  # counts are for show: none are better than no answer
                logger.error(fields("token_count_failed", error=where(error)))
                return
            exchange.tokens = (counts[0], counts[1])
            if self._wire.name is WireName.MESSAGES:
                exchange.breakpoints = await asyncio.to_thread(breakpoints_of, prepared.body)
            services.metrics.tokens_in.inc(counts[0])
            services.metrics.tokens_out.inc(counts[1])

        task = asyncio.create_task(count())
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)
        return task


def _line(
    wire: Wire,
    exchange: Exchange,
    status: int,
    total_s: float,
    num_bytes: int,
    error: BaseException | None,
    key_id: str | None,
) -> str:
    """What the log says of a request."""
    prepared, answer = exchange.prepared, exchange.answer
    return fields(
        wire.name,
        status=status,
        mode=prepared and prepared.mode,
        epoch=exchange.epoch,
        bypass=prepared and prepared.bypass,
        tokens_in=exchange.tokens and exchange.tokens[0],
        tokens_out=exchange.tokens and exchange.tokens[1],
        upstream=answer and answer.upstream,
        retries=answer and (answer.num_retries or None),
        overhead_ms=exchange.own_s * 1000,
        total_ms=total_s * 1000,
        answer=answer and answer.source,
        answer_bytes=num_bytes,
        key=key_id,
        error=error and where(error),
        # What is said of upstreams is our own text and quotes no request; other errors may.
        reason=str(error) if isinstance(error, UpstreamError) else None,
    )


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


def outgoing_of(scope: Scope, prepared: Prepared, wire: Wire) -> Outgoing:
    """The request that goes to the upstream."""
    parsed, target = prepared.parsed, prepared.target
    stream = parsed is not None and parsed.stream
    kept = (DRAFT_HEADER,) if target is not None and target.is_local else ()
    # What the search tool reads comes plain.
    is_plain = stream or prepared.searching is not None
    headers = readable(to_upstream(scope["headers"], identity=is_plain, kept=kept))
    if not prepared.is_packed:
        headers = [(name, value) for name, value in headers if name != b"content-encoding"]
    model = parsed.model if parsed is not None else ""
    # What could not be unpacked can be sent as it is, to an upstream that speaks its format, and no other way.
    form = None if prepared.is_packed else wire.name
    return Outgoing("POST", target_of(scope), headers, prepared.body, form, model, stream)


def target_of(scope: Scope) -> str:
    """Path and query of a request, quoted as the client quoted them."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
