"""Asks several upstreams for their models, all at once, and makes one list of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sluice.proxy.errors import ForeignCredentialError, UpstreamError
from sluice.proxy.headers import Header
from sluice.proxy.upstreams.addressing import Addressing
from sluice.proxy.upstreams.answers import HeldAnswer, hold
from sluice.proxy.upstreams.credential_owner import owner_of
from sluice.proxy.upstreams.member import Member
from sluice.proxy.upstreams.models import Routing, merge_lists

_TIMEOUT_S = 10.0
_MAX_LIST_BYTES = 8 * 2**20


async def list_models(
    members: Sequence[Member], headers: Sequence[Header], addressing: Addressing, routing: Routing
) -> HeldAnswer:
    """List the models of these upstreams; one that gives no list is left out.

    The client's credential goes to the upstream that it belongs to; others that have none of their own are not asked,
    and stand in the list with the names that are configured for them.

    Args:
        members: the upstreams, in the order in which their patterns count.
        headers: the client's, as they go to an upstream.
        addressing: puts the question into the form that each takes.
        routing: says which of them serves a model.

    Raises:
        UpstreamError: none of those that were asked answered; the first one's.
    """
    plain = [(name, value) for name, value in headers if name != b"accept-encoding"]
    asked = [*plain, (b"accept-encoding", b"identity")]
    owner = owner_of(headers, members, default=routing.find(""))
    answers = await asyncio.gather(*(_ask(member, asked, addressing, owner) for member in members))
    held = [answer for answer in answers if isinstance(answer, HeldAnswer)]
    errors = [answer for answer in answers if isinstance(answer, UpstreamError)]
    if not held and errors:
        raise errors[0]
    if held and all(answer.status != 200 for answer in held):
        return held[0]
    listed = [
        (member.settings, answer.body if answer is not None and answer.status == 200 else b"")
        for member, answer in zip(members, answers, strict=True)
        if not isinstance(answer, UpstreamError)
    ]
    body = merge_lists(listed, routing)
    length = (b"content-length", b"%d" % len(body))
    return HeldAnswer(200, [(b"content-type", b"application/json"), length], body)


async def _ask(
    member: Member, headers: Sequence[Header], addressing: Addressing, owner: Member | None
) -> HeldAnswer | UpstreamError | None:
    """An upstream's list, or why there is none; None where there is no credential to ask it with."""
    origin = member.target.origin
    if member.settings.takes_clients_credential and (owner is None or origin != owner.target.origin):
        return None
    try:
        request = addressing.address_list(member, "/v1/models", headers)
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await member.http.send("GET", request.path, request.headers)
            held = await hold(answer, max_bytes=_MAX_LIST_BYTES)
    except ForeignCredentialError:  # at its owner's origin stands another preset as well
        return None
    except TimeoutError:
        return UpstreamError(f"upstream {origin} lists no models within {_TIMEOUT_S:g} s")
    except UpstreamError as error:
        return error
    return held if held.is_whole else UpstreamError(f"upstream {origin} gives no usable list of models")
