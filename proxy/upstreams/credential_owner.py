"""Whose a client's credential is, where a request names no model that would say so: one of several upstreams, or none.

Decides alone; what is sent is `addressing.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sluice.proxy.headers import Header, find
from sluice.proxy.upstreams.addressing import Addressee
from sluice.proxy.upstreams.credentials import token_of
from sluice.proxy.upstreams.presets import CHAT, MESSAGES, foreign_owner, provider_of_key

SomeUpstream = TypeVar("SomeUpstream", bound=Addressee)


def owner_of(headers: Sequence[Header], upstreams: Sequence[SomeUpstream], default: str) -> SomeUpstream | None:
    """The upstream that a client's credential is sent to with a request for no model; None where it is sent nowhere.

    The form of the key tells, or else the format that the client speaks. Where they tell of several, or of none, it is
    the default one or none: those at one origin are one, and may all have it.

    Args:
        headers: the client's.
        upstreams: all of them.
        default: name of the one that serves requests that name no model.
    """
    takers = [upstream for upstream in upstreams if upstream.settings.takes_clients_credential]
    told: list[SomeUpstream] = []
    if (token := token_of(headers)) is not None:
        takers = [upstream for upstream in takers if foreign_owner(token, upstream.settings.known) is None]
        provider = provider_of_key(token)
        told = [upstream for upstream in takers if upstream.settings.known.name == provider]
    if not told:
        is_anthropics = any(find(headers, name) is not None for name in (b"anthropic-version", b"x-api-key"))
        told = [upstream for upstream in takers if (MESSAGES if is_anthropics else CHAT) in upstream.target.wires]
    is_one = len({upstream.target.origin for upstream in told}) == 1
    of_default = (upstream for upstream in told or takers if upstream.settings.name == default)
    return next(of_default, told[0] if is_one else None)
