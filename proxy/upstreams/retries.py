"""When a request may be sent again, and after how long: plain functions. Knows no sockets and reads no clock.

Only what was certainly not worked on is sent again, so that a retry costs time and no money. Full jitter: every wait
is drawn from zero up to a bound that doubles (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog).
"""

from __future__ import annotations

import email.utils
from collections.abc import Iterable
from dataclasses import dataclass

from sluice.proxy.errors import (
    UpstreamConnectTimeoutError,
    UpstreamError,
    UpstreamPoolTimeoutError,
    UpstreamUnreachableError,
    UpstreamWriteTimeoutError,
)
from sluice.proxy.headers import Header, find

RETRIED_STATUSES = frozenset((429, 502, 503, 529))
"""Answers that say that nothing was worked on: too many requests, no backend, unavailable, overloaded."""
FAILED_STATUSES = frozenset((502, 503, 504, 529))
"""Answers that speak against the upstream itself. 429 does not: it is about who asks."""
BASE_S = 0.25
"""Bound on the first wait, in seconds."""
CAP_S = 4.0
"""Bound that the others double up to, in seconds."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How failures are dealt with."""

    max_retries: int = 2
    """How often a request is sent to the same upstream again."""
    max_wait_s: float = 8.0
    """Longest wait before it is, in seconds."""
    breaker_failures: int = 5
    """Failures in a row after which an upstream is passed over."""
    breaker_retry_s: float = 10.0
    """Seconds until one request tries it again."""


def retry_wait_s(num_retries: int, draw: float, asked_s: float | None, max_wait_s: float) -> float | None:
    """How long to wait before a request is sent again.

    Args:
        num_retries: how often it was sent again before.
        draw: a random number in [0, 1).
        asked_s: how long the upstream asks to wait, in seconds; None where it does not say.
        max_wait_s: longest wait that is worth it, in seconds.

    Returns:
        Seconds, or None where the upstream asks for more than is worth it: the client is told, and may wait itself.
    """
    jittered_s: float = draw * min(CAP_S, BASE_S * 2**num_retries)
    if asked_s is None:
        return min(jittered_s, max_wait_s)
    # All who were sent away together come back after the time that they were told; the jitter spreads them.
    return asked_s + min(jittered_s, BASE_S) if asked_s <= max_wait_s else None


def asked_wait_s(headers: Iterable[Header], now_s: float) -> float | None:
    """How long an answer asks to wait (`retry-after-ms`, `retry-after`), in seconds; None where it does not say.

    Args:
        headers: the answer's, names in lower case.
        now_s: seconds since the epoch.
    """
    headers = list(headers)
    try:
        if (text := find(headers, b"retry-after-ms")) is not None:
            return max(0.0, float(text) / 1000)
        if (text := find(headers, b"retry-after")) is None:
            return None
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def is_retried_error(error: UpstreamError) -> bool:
    """Whether the same upstream is asked again: the request did not reach it, and the next may."""
    return error.was_stale or isinstance(error, UpstreamUnreachableError)


def may_fall_back(error: UpstreamError) -> bool:
    """Whether another upstream may be asked: this one certainly has not worked on the request."""
    certain = (UpstreamConnectTimeoutError, UpstreamWriteTimeoutError, UpstreamPoolTimeoutError)
    return isinstance(error, certain) or is_retried_error(error)


def speaks_against_upstream(error: UpstreamError) -> bool:
    """Whether an error counts for the circuit breaker; others say nothing of it, neither good nor bad."""
    return not (error.was_stale or isinstance(error, UpstreamPoolTimeoutError))


def forbids_retry(headers: Iterable[Header], body: bytes) -> bool:
    """Whether an answer says that asking again is of no use (`x-should-retry`, a used-up quota).

    Args:
        headers: the answer's, names in lower case.
        body: the start of its body.
    """
    return find(headers, b"x-should-retry") == "false" or b'"insufficient_quota"' in body
