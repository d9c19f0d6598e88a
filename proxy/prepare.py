"""From a request's body to the body that is forwarded. Fails open: whatever breaks, the client's bytes go out.

Only a body that is certainly no request of its wire is refused. Knows no sockets and no answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from sluice.compressor import Compressed, Mode, StateError
from sluice.compressor.economics import CHARS_PER_TOKEN, num_tokens
from sluice.proxy.apart import compress_apart
from sluice.proxy.body import Body
from sluice.proxy.cache_cost import cache_cost
from sluice.proxy.encoding import UnreadableBodyError, unpack_aside
from sluice.proxy.errors import InvalidFieldError, RequestError, UnknownModelError
from sluice.proxy.headers import Header, find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.model_name import model_of
from sluice.proxy.prepared import Bypass, Prepared
from sluice.proxy.services import Services
from sluice.proxy.session import session_of
from sluice.proxy.tenant import tenant_of
from sluice.proxy.upstreams import Target
from sluice.proxy.window import messages_bound
from sluice.proxy.wire import WireName
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.breakpoints import place_breakpoint

MODE_HEADER = b"x-sluice-mode"
BUDGET_HEADER = b"x-sluice-budget-tokens"
_MAX_BUDGET_DIGITS = 12
_BACKSTOP = 3
"""Times the longest wait: the store and the decision are each waited for no longer than they may be, and what is
known is replayed then. To give up as a whole would change the prefix, so it is left to what is never expected."""


def mode_of(headers: Sequence[Header], default: Mode) -> Mode:
    """Read the mode that a request asks for.

    Raises:
        InvalidFieldError: there is no such mode.
    """
    value = find(headers, MODE_HEADER)
    if value is None:
        return default
    try:
        return Mode(value.lower())
    except ValueError:
        known = ", ".join(Mode)
        raise InvalidFieldError(f"x-sluice-mode must be one of {known}, not {value!r}", param="x-sluice-mode") from None


def budget_of(headers: Sequence[Header]) -> int | None:
    """Read towards how many tokens old results are to be rewritten; None where the request does not say.

    Raises:
        InvalidFieldError: it is no positive whole number, or longer than any that makes sense.
    """
    value = find(headers, BUDGET_HEADER)
    if value is None:
        return None
    if not value.isdecimal() or len(value) > _MAX_BUDGET_DIGITS or int(value) == 0:
        name = BUDGET_HEADER.decode()
        raise InvalidFieldError(f"{name} must be a positive whole number, not {value[:40]!r}", param=name)
    return int(value)


async def prepare(
    raw: bytes,
    headers: Sequence[Header],
    wire: Wire,
    mode: Mode,
    services: Services,
    *,
    dry: bool = False,
    searches: bool = True,
) -> Prepared:
    """Compress a request's messages.

    Args:
        raw: the body, as it came.
        headers: the client's.
        wire: the format of the body.
        mode: that is asked for.
        services: the parts to work with.
        dry: say what would be forwarded, and freeze nothing.
        searches: whether the search tool may be added.

    Raises:
        RequestError: the body is no request of its wire, and the mode is not `off`; or the budget is none.
        UnknownModelError: no upstream serves the model.
    """
    max_tokens = budget_of(headers)
    try:
        plain = await unpack_aside(raw, find(headers, b"content-encoding") or "", services.settings.max_body_bytes)
    except UnreadableBodyError:
        return Prepared(raw, mode, bypass="content-encoding", is_packed=True)
    tenant = await _tenant(headers, services)
    try:
        parsed = services.bodies.parse(plain, wire.shape, tenant) if tenant else wire.parse(plain)
    except RequestError:
        if mode is Mode.OFF:
            return Prepared(raw, mode, is_packed=plain is not raw, target=_named_target(plain, services))
        raise
    target = _priced(services.upstreams.resolve(parsed.model), parsed, wire, services)
    searching = None
    if services.search_tool is not None and searches and mode is not Mode.OFF:
        searching = await services.search_tool.added(parsed, wire, tenant=tenant, upstream=target.origin, dry=dry)
        parsed = searching.parsed if searching is not None else parsed
        plain = parsed.raw
    # A local server's prefix cache is ours to care for; what is left out says nothing to a model.
    stabilised = wire.stabilised(parsed) if target.is_local and parsed.spans is not None else {}
    untouched = Prepared(
        parsed.splice(parsed.messages, stabilised) if stabilised and mode is not Mode.OFF else plain,
        mode,
        parsed=parsed,
        messages_out=parsed.messages,
        target=target,
        tenant=tenant,
        searching=searching,
    )
    if mode is Mode.OFF or wire.dialect is None:
        return untouched
    if parsed.spans is None:
        return replace(untouched, bypass="duplicate-key")
    if not tenant:
        return replace(untouched, bypass="state")
    try:
        async with asyncio.timeout(_BACKSTOP * services.settings.compress_timeout_s):
            bounds = (max_tokens, services.windows.bound(target.origin, parsed.model, _num_beside(untouched)))
            bound = min((bound for bound in bounds if bound is not None), default=None)
            compressed = await _compress(parsed, headers, wire, mode, target, tenant, services, bound, dry=dry)
        return _forwarded(untouched, compressed, wire, stabilised, services)
    except StateError:
        bypass: Bypass = "state"
    except TimeoutError:
        bypass = "timeout"
    except Exception as error:  # a fault of ours must not cost the request
        bypass = "error"
        logger.error(fields("compression_failed", error=where(error)))
    return replace(untouched, bypass=bypass)


def _named_target(body: bytes, services: Services) -> Target | None:
    """Which upstream serves the model that a body names though it is no request of its wire; None where none does."""
    try:
        return services.upstreams.resolve(model_of(body))
    except UnknownModelError:
        return None


def _priced(target: Target, parsed: Body, wire: Wire, services: Services) -> Target:
    """An upstream with what its cache costs for this request."""
    price = services.prices.find(target.name_of(parsed.model), is_local=target.is_local)
    is_ttl_given = services.settings.cache_ttl_s is not None
    return replace(target, profile=cache_cost(target.profile, price, parsed, wire.name, is_ttl_given=is_ttl_given))


async def _tenant(headers: Sequence[Header], services: Services) -> bytes:
    try:
        return tenant_of(headers, await services.store.secret())
    except StateError:
        return b""


async def shrink(
    prepared: Prepared, headers: Sequence[Header], wire: Wire, services: Services, limit: int, num_counted: int | None
) -> Prepared | None:
    """Compress a request again that the upstream refused as too long; None where that makes it no shorter.

    Args:
        prepared: what was refused.
        headers: the client's.
        wire: the format of the body.
        services: the parts to work with.
        limit: tokens that the model takes in all; 0 where the upstream does not say.
        num_counted: tokens of the messages that were refused; None where they are not counted.
    """
    parsed, target, refused = prepared.parsed, prepared.target, prepared.compressed
    if refused is None or prepared.bypass is not None or parsed is None or target is None:
        return None
    if wire.edits_history(parsed):
        return None
    num_estimated = num_tokens(refused.num_chars_out, len(refused.messages))
    num_beside = _num_beside(prepared) + wire.num_reserved(parsed)
    max_tokens = messages_bound(num_estimated, num_counted, num_beside, limit)
    stabilised = wire.stabilised(parsed) if target.is_local else {}
    try:
        async with asyncio.timeout(_BACKSTOP * services.settings.compress_timeout_s):
            compressed = await _compress(
                parsed, headers, wire, prepared.mode, target, prepared.tenant, services, max_tokens, is_refused=True
            )
        again = _forwarded(prepared, compressed, wire, stabilised, services)
    except Exception as error:  # the upstream's refusal stands
        logger.error(fields("compression_failed", error=where(error)))
        return None
    return again if len(again.body) < len(prepared.body) else None


def _num_beside(prepared: Prepared) -> float:
    """Estimated tokens of what stands beside the messages: tools and system prompt, for the most part."""
    return (len(prepared.body) - sum(map(len, prepared.messages_out))) / CHARS_PER_TOKEN


async def _compress(
    parsed: Body,
    headers: Sequence[Header],
    wire: Wire,
    mode: Mode,
    target: Target,
    tenant: bytes,
    services: Services,
    max_tokens: int | None,
    *,
    is_refused: bool = False,
    dry: bool = False,
) -> Compressed:
    assert wire.dialect is not None
    is_apart = wire.edits_history(parsed)
    compressor = services.dry_compressor if dry else services.apart_compressor if is_apart else services.compressor
    compress = partial(
        compressor.compress,
        dialect=wire.dialect,
        mode=mode,
        tenant=tenant,
        upstream=target.origin,
        max_tokens=max_tokens,
        context=wire.context(parsed),
        profile=target.profile,
        # Where each message is compressed for itself, there is no conversation that could be held out.
        holdout=0.0 if is_apart else services.settings.holdout,
        session=session_of(headers, parsed) if services.settings.max_reattached_chars else b"",
    )
    if is_apart:
        return await compress_apart(
            parsed.messages,
            wire.dialect,
            mode,
            compressor=compressor,
            tenant=tenant,
            upstream=target.origin,
            compress=compress,
        )
    return await compress(parsed.messages, is_refused=is_refused)


def _forwarded(
    prepared: Prepared, compressed: Compressed, wire: Wire, stabilised: Mapping[str, bytes], services: Services
) -> Prepared:
    """What is forwarded once the compressor has spoken."""
    parsed = prepared.parsed
    assert parsed is not None
    messages = compressed.messages
    if wire.name is WireName.MESSAGES and services.settings.cache_breakpoints:
        messages = place_breakpoint(parsed.raw, messages)
    return replace(
        prepared,
        body=parsed.splice(messages, stabilised),
        mode=compressed.mode,
        bypass=compressed.bypass,
        messages_out=compressed.messages,
        compressed=compressed,
    )
