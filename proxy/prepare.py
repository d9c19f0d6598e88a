"""From a request's body to the body that is forwarded. Fails open: whatever breaks, the client's bytes go out.

Only a body that is certainly no request of its wire is refused. Knows no sockets and no answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sluice.compressor import Compressed, Mode, StateError
from sluice.proxy.body import Body
from sluice.proxy.errors import InvalidFieldError, RequestError
from sluice.proxy.headers import Header, find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.services import Services
from sluice.proxy.tenant import tenant_of
from sluice.proxy.upstreams import Target
from sluice.proxy.wire.base import Wire

MODE_HEADER = b"x-sluice-mode"
BUDGET_HEADER = b"x-sluice-budget-tokens"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, ready to be forwarded."""

    body: bytes
    """What goes to the upstream."""
    mode: Mode
    """The mode in force."""
    bypass: str | None = None
    """Why compression was skipped or failed; None where it ran, or where the mode is `off`."""
    parsed: Body | None = None
    """The client's body, decoded; None where it was not."""
    messages_out: Sequence[bytes] = ()
    """The messages in `body`."""
    target: Target | None = None
    """Which upstream serves it; None: the one that serves requests that name no model."""
    compressed: Compressed | None = None
    """What the compressor said; None where it was not asked, or failed."""
    tenant: bytes = b""
    """Who sends the request; empty where that cannot be told."""


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
    """Read how many tokens a request may be forwarded with; None where it does not say.

    Raises:
        InvalidFieldError: it is no positive whole number.
    """
    value = find(headers, BUDGET_HEADER)
    if value is None:
        return None
    if not value.isdecimal() or int(value) == 0:
        name = BUDGET_HEADER.decode()
        raise InvalidFieldError(f"{name} must be a positive whole number, not {value!r}", param=name)
    return int(value)


async def prepare(raw: bytes, headers: Sequence[Header], wire: Wire, mode: Mode, services: Services) -> Prepared:
    """Compress a request's messages.

    Raises:
        RequestError: the body is no request of its wire, and the mode is not `off`; or the budget is none.
        UnknownModelError: no upstream serves the model.
    """
    max_tokens = budget_of(headers)
    encoding = find(headers, b"content-encoding")
    if encoding not in (None, "", "identity"):
        return Prepared(raw, mode, bypass="content-encoding")
    try:
        parsed = wire.parse(raw)
    except RequestError:
        if mode is Mode.OFF:
            return Prepared(raw, mode)
        raise
    target = services.upstreams.resolve(parsed.model)
    tenant = await _tenant(headers, services)
    untouched = Prepared(raw, mode, None, parsed, parsed.messages, target, tenant=tenant)
    if mode is Mode.OFF or wire.dialect is None:
        return untouched
    if parsed.spans is None:
        return replace(untouched, bypass="duplicate-key")
    if not tenant:
        return replace(untouched, bypass="state")
    try:
        async with asyncio.timeout(services.settings.compress_timeout_s):
            compressed = await services.compressor.compress(
                parsed.messages,
                dialect=wire.dialect,
                mode=mode,
                tenant=tenant,
                upstream=target.origin,
                max_tokens=max_tokens,
                context=wire.context(parsed),
                profile=target.profile,
                holdout=services.settings.holdout,
            )
        return replace(
            untouched,
            body=parsed.splice(compressed.messages),
            mode=compressed.mode,
            bypass=compressed.bypass,
            messages_out=compressed.messages,
            compressed=compressed,
        )
    except StateError:
        bypass = "state"
    except TimeoutError:
        bypass = "timeout"
    except Exception as error:  # a fault of ours must not cost the request
        bypass = "error"
        logger.error(fields("compression_failed", error=where(error)))
    return replace(untouched, bypass=bypass)


async def _tenant(headers: Sequence[Header], services: Services) -> bytes:
    try:
        return tenant_of(headers, await services.store.secret())
    except StateError:
        return b""
