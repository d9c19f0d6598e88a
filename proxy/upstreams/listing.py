"""Asks several upstreams for their models, all at once, and makes one list of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sluice.proxy.errors import ForeignCredentialError, UpstreamError
from sluice.proxy.headers import Header
from sluice.proxy.upstreams.addressing import Addressing
from sluice.proxy.upstreams.answers import HeldAnswer, hold
from sluice.proxy.upstreams.member import Member
from sluice.proxy.upstreams.models import Routing, merge_lists

_TIMEOUT_S = 10.0
_MAX_LIST_BYTES = 8 * 2**20


async def list_models(
    members: Sequence[Member], headers: Sequence[Header], addressing: Addressing, routing: Routing
) -> HeldAnswer:
    """List the models of these upstreams; one that gives no list is left out.

    Args:
        members: the upstreams, in the order in which their patterns count.
        headers: the client's, as they go to an upstream.
        addressing: puts the question into the form that each takes.
        routing: says which of them serves a model.

    Raises:
        UpstreamError: none of them answered; the first one's.
    """
    plain = [(name, value) for name, value in headers if name != b"accept-encoding"]
    asked = [*plain, (b"accept-encoding", b"identity")]
    answers = await asyncio.gather(*(_ask(member, asked, addressing) for member in members))
    held = [(member, answer) for member, answer in zip(members, answers, strict=True) if isinstance(answer, HeldAnswer)]
    if not held:
        raise next(answer for answer in answers if isinstance(answer, UpstreamError))
    if all(answer.status != 200 for _, answer in held):
        return held[0][1]
    listed = [(member.settings, answer.body if answer.status == 200 else b"") for member, answer in held]
    body = merge_lists(listed, routing)
    length = (b"content-length", b"%d" % len(body))
    return HeldAnswer(200, [(b"content-type", b"application/json"), length], body)


async def _ask(member: Member, headers: Sequence[Header], addressing: Addressing) -> HeldAnswer | UpstreamError:
    origin = member.target.origin
    try:
        request = addressing.address_list(member, "/v1/models", headers)
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await member.http.send("GET", request.path, request.headers)
            held = await hold(answer, max_bytes=_MAX_LIST_BYTES)
    except ForeignCredentialError as error:
        return UpstreamError(str(error))
    except TimeoutError:
        return UpstreamError(f"upstream {origin} lists no models within {_TIMEOUT_S:g} s")
    except UpstreamError as error:
        return error
    return held if held.is_whole else UpstreamError(f"upstream {origin} gives no usable list of models")
