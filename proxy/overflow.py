"""An upstream's refusal of a request as too long, and what it says of the limit. Knows no sockets."""

from __future__ import annotations

from sluice.proxy.encoding import UnreadableBodyError, unpack
from sluice.proxy.errors import BodyTooLargeError
from sluice.proxy.headers import find
from sluice.proxy.upstreams import HeldAnswer, is_context_overflow

MAX_ERROR_BYTES = 2**20
"""Longest error that is read."""


def overflow_limit(answer: HeldAnswer) -> int | None:
    """How many tokens the upstream takes; 0 where it does not say; None where it refused for another reason."""
    encoding = find([(name.lower(), value) for name, value in answer.headers], b"content-encoding") or ""
    try:
        body = unpack(answer.body, encoding, MAX_ERROR_BYTES)
    except (UnreadableBodyError, BodyTooLargeError):
        return None
    return is_context_overflow(answer.status, body)
