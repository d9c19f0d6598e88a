"""An upstream's refusal of a request as too long: held in memory, so that it can be read and, if need be, passed on."""

from __future__ import annotations

from sluice.proxy.answers import SourcedAnswer
from sluice.proxy.encoding import UnreadableBodyError, unpack
from sluice.proxy.errors import BodyTooLargeError, UpstreamDisconnectedError
from sluice.proxy.headers import find
from sluice.proxy.upstreams import HeldAnswer, is_context_overflow
from sluice.proxy.upstreams.answers import hold

OVERFLOW_STATUSES = frozenset({400, 413, 422})
"""Statuses under which upstreams say that a request is too long."""
_MAX_ERROR_BYTES = 2**20


async def hold_error(answer: SourcedAnswer) -> HeldAnswer:
    """Read an error into memory and release its connection.

    Raises:
        UpstreamDisconnectedError: it did not come whole.
    """
    held = await hold(answer, max_bytes=_MAX_ERROR_BYTES)
    if held is None:
        raise UpstreamDisconnectedError(f"upstream {answer.upstream} gave no whole answer of status {answer.status}")
    return held


def overflow_limit(answer: HeldAnswer) -> int | None:
    """How many tokens the upstream takes; 0 where it does not say; None where it refused for another reason."""
    encoding = find([(name.lower(), value) for name, value in answer.headers], b"content-encoding") or ""
    try:
        body = unpack(answer.body, encoding, _MAX_ERROR_BYTES)
    except (UnreadableBodyError, BodyTooLargeError):
        return None
    return is_context_overflow(answer.status, body)
