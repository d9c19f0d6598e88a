"""How fast and how much a key may use: a rate, and budgets per day and month. Counted here, or in Redis (`redis.py`).

The rate is a token bucket in the form of one number, the time at which the bucket will be full again (the generic cell
rate algorithm, ITU-T I.371). Decisions are plain functions.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.errors import BudgetSpentError, RateLimitError

BURST_S = 60.0
"""How many seconds' worth of requests may come at once."""
ROUNDING_S = 1e-6
"""What is less than this off fits: who waits as long as told must not be refused for a rounding."""
_MAX_COUNTERS = 100_000


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget of a key in the period that is running."""

    counter: str
    """Names what is spent of it."""
    limit: float
    unit: str
    """`tokens` or `dollars`."""
    period: str
    """`day` or `month`."""
    ends_in_s: float
    """Seconds until the period is over."""


def rate_step(full_at_s: float, now_s: float, per_minute: float) -> tuple[float, float]:
    """Take one request out of a bucket.

    Args:
        full_at_s: when the bucket will be full again.
        now_s: seconds, of the same clock.
        per_minute: the rate.

    Returns:
        When it will be full after that (to be kept in either case), and how long to wait first, in seconds; where that
        is not 0, nothing is taken.
    """
    burst_s = max(BURST_S, 60.0 / per_minute)
    # No bucket takes longer to fill than from its bottom: what says otherwise is of a clock that was set back since.
    full_at_s = min(max(full_at_s, now_s), now_s + burst_s)
    after = full_at_s + 60.0 / per_minute
    wait_s = after - now_s - burst_s
    return (full_at_s, wait_s) if wait_s > ROUNDING_S else (after, 0.0)


def budgets_of(key: ProxyKey, now_s: float) -> list[Budget]:
    """List the budgets of a key.

    Args:
        key: the key.
        now_s: seconds since the epoch.
    """
    now = datetime.fromtimestamp(now_s, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = midnight + timedelta(days=1)
    next_month = midnight.replace(day=1) + timedelta(days=calendar.monthrange(now.year, now.month)[1])
    periods = (("day", f"{now:%Y-%m-%d}", tomorrow), ("month", f"{now:%Y-%m}", next_month))
    return [
        Budget(f"{key.id}:{unit}:{stamp}", limit, unit, period, (end - now).total_seconds())
        for period, stamp, end in periods
        for unit in ("tokens", "dollars")
        if (limit := getattr(key, f"{unit}_per_{period}")) is not None
    ]


def rate_error(key: ProxyKey, wait_s: float) -> RateLimitError:
    """Say that a key's requests come too fast."""
    return RateLimitError(f"key {key.name!r} may send {key.requests_per_minute:,.15g} requests a minute", wait_s)


def budget_error(key: ProxyKey, budget: Budget) -> BudgetSpentError:
    """Say that a budget is spent."""
    message = f"key {key.name!r} has spent its {budget.limit:,.15g} {budget.unit} of the {budget.period}"
    return BudgetSpentError(message, budget.ends_in_s)


class Limits(Protocol):
    """Keeps count of what keys use."""

    async def admit(self, key: ProxyKey) -> None:
        """Let one request of a key in.

        Raises:
            RateLimitError: they come too fast.
            BudgetSpentError: a budget is spent.
        """
        ...

    async def spend(self, key: ProxyKey, *, tokens: int, dollars: float) -> None:
        """Note what a request has used. What is running when a budget ends is served to its end."""
        ...


class MemoryLimits:
    """Counts in this process.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._spent: dict[str, float] = {}

    async def admit(self, key: ProxyKey) -> None:
        """See `Limits`."""
        now = self._clock()
        for budget in budgets_of(key, now):
            if self._spent.get(budget.counter, 0.0) >= budget.limit:
                raise budget_error(key, budget)
        if key.requests_per_minute is not None:
            self._full_at[key.id], wait_s = rate_step(self._full_at.get(key.id, 0.0), now, key.requests_per_minute)
            if wait_s > 0:
                raise rate_error(key, wait_s)

    async def spend(self, key: ProxyKey, *, tokens: int, dollars: float) -> None:
        """See `Limits`."""
        used = {"tokens": float(tokens), "dollars": dollars}
        for budget in budgets_of(key, self._clock()):
            self._spent[budget.counter] = self._spent.get(budget.counter, 0.0) + used[budget.unit]
        while len(self._spent) > _MAX_COUNTERS:
            del self._spent[next(iter(self._spent))]
