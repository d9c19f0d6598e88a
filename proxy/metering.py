"""From what an exchange knows to what the meter records. Knows no sockets; decides nothing."""

from __future__ import annotations

from sluice.compressor import Dialect
from sluice.proxy.exchange import Exchange
from sluice.proxy.meter.composition import Arrived
from sluice.proxy.meter.turn import MAX_LEADING, Source, Turn
from sluice.proxy.prepared import Prepared
from sluice.proxy.upstreams import Target
from sluice.proxy.wire import WireName

NO_MODEL = "sluice-connect-check"
"""Names no model: `sluice connect` asks for it to see that the way is open. A refusal costs nothing, and is no
fault that anybody's figures should show."""


def turn_of(
    exchange: Exchange,
    *,
    wire: WireName,
    key_id: str | None,
    at_s: float,
    status: int,
    total_s: float,
    served_by: Target | None,
    traceparent: str | None,
) -> Turn | None:
    """Put a turn together; None where it could not be read, so that nothing is known of it, or is a refused check.

    Args:
        exchange: the request.
        wire: its format.
        key_id: of its proxy key; None where it has none.
        at_s: when it came, by the wall clock.
        status: that the client was sent.
        total_s: from its beginning to its end, in seconds.
        served_by: the upstream that answered, where that is known: a fallback may have.
        traceparent: W3C trace context that the client sent.
    """
    prepared, answer, tokens = exchange.prepared, exchange.answer, exchange.tokens
    if prepared is None or prepared.parsed is None:
        return None
    parsed, target, compressed = prepared.parsed, prepared.target, prepared.compressed
    if parsed.model == NO_MODEL and status >= 400:
        return None
    served_by = served_by or target
    return Turn(
        at_s=at_s,
        model=parsed.model,
        upstream=served_by.name if served_by is not None else "",
        upstream_model=served_by.name_of(parsed.model) if served_by is not None else "",
        is_local=served_by.is_local if served_by is not None else False,
        key=key_id or prepared.tenant[:6].hex(),
        wire=wire,
        mode=prepared.mode,
        is_holdout=compressed.is_holdout if compressed else False,
        conversation=compressed.conversation if compressed else "",
        status=status,
        tokens_in=tokens[0] if tokens else None,
        tokens_out=tokens[1] if tokens else None,
        usage=exchange.usage,
        overhead_s=exchange.own_s,
        total_s=total_s,
        epoch=compressed.epoch if compressed else None,
        bypass=prepared.bypass,
        num_new=compressed.num_new if compressed else 0,
        num_messages=len(prepared.messages_out),
        stream=parsed.stream,
        source=answer.source if answer is not None else Source.UPSTREAM,
        num_retries=answer.num_retries if answer is not None else 0,
        ttl_s=target.profile.ttl_s if target is not None else 0.0,
        breakpoints=exchange.breakpoints,
        traceparent=traceparent,
    )


def arrived_of(prepared: Prepared, dialect: Dialect | None) -> Arrived | None:
    """The messages that are new in a request; None where none are, or where it is no conversation's."""
    parsed, compressed = prepared.parsed, prepared.compressed
    if dialect is None or parsed is None or compressed is None or not compressed.conversation:
        return None
    came, went, num_new = parsed.messages, prepared.messages_out, compressed.num_new
    if len(came) - num_new <= MAX_LEADING:
        num_new = len(came)  # the system messages before a conversation come with its first turn
    if num_new == 0 or len(went) != len(came):
        return None
    return Arrived(dialect, came[-num_new:], went[-num_new:])
