from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.access.keys import ProxyKey, make_key
from sluice.proxy.access.limits import BURST_S, Limits, MemoryLimits, budget_error, budgets_of, rate_step
from sluice.proxy.access.redis import RedisLimits
from sluice.proxy.errors import BudgetSpentError, RateLimitError
from sluice.proxy.state.client import RedisClient
from tests.effort import examples
from tests.redis_server import RedisServer

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC).timestamp()


def key_of(**limits: float) -> ProxyKey:
    return make_key("ann", **limits)[0]


@examples(100)
@given(per_minute=st.integers(1, 600), gaps=st.lists(st.floats(0, 30), max_size=200))
def test_no_stretch_of_time_sees_more_than_the_rate_and_its_burst(per_minute: int, gaps: list[float]) -> None:
    now, full_at = 0.0, 0.0
    let_in: list[float] = []
    for gap in gaps:
        now += gap
        full_at, wait_s = rate_step(full_at, now, per_minute)
        if wait_s == 0:
            let_in.append(now)
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            allowed = per_minute * (let_in[last] - let_in[first] + BURST_S) / 60
            assert last - first + 1 <= max(1.0, allowed) + 1e-3


@examples(50)
@given(per_minute=st.floats(0.1, 600), num=st.integers(1, 50))
def test_who_waits_as_long_as_told_is_let_in(per_minute: float, num: int) -> None:
    now, full_at = 1000.0, 0.0
    for _ in range(num):
        full_at, wait_s = rate_step(full_at, now, per_minute)
        if wait_s > 0:
            now += wait_s
            full_at, wait_s = rate_step(full_at, now, per_minute)
            assert wait_s == 0


def test_a_burst_is_a_minutes_worth() -> None:
    full_at, waits = 0.0, []
    for _ in range(4):
        full_at, wait_s = rate_step(full_at, 5000.0, 3)
        waits.append(round(wait_s))
    assert waits == [0, 0, 0, 20]


def test_a_spent_budget_is_named_in_full() -> None:
    key = key_of(tokens_per_day=1_234_567)
    assert "its 1,234,567 tokens of the day" in str(budget_error(key, budgets_of(key, NOON)[0]))


def test_budgets_run_by_day_and_month() -> None:
    budgets = budgets_of(key_of(tokens_per_day=5, dollars_per_month=1.5), NOON)
    assert [(budget.unit, budget.period, budget.ends_in_s) for budget in budgets] == [
        ("tokens", "day", 12 * 3600.0),
        ("dollars", "month", 12 * 3600.0),
    ]
    december = budgets_of(key_of(tokens_per_month=5), datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp())
    assert december[0].ends_in_s == 3600.0


class LimitsContract:
    async def make(self, request: pytest.FixtureRequest) -> Limits:
        raise NotImplementedError

    async def test_a_rate_is_kept(self, request: pytest.FixtureRequest) -> None:
        limits, key, other = await self.make(request), key_of(requests_per_minute=2), key_of(requests_per_minute=2)
        for _ in range(2):
            await limits.admit(key)
        with pytest.raises(RateLimitError) as caught:
            await limits.admit(key)
        assert caught.value.retry_after_s == pytest.approx(30.0, abs=5.0)
        await limits.admit(other)

    async def test_budgets_are_kept(self, request: pytest.FixtureRequest) -> None:
        limits, key = await self.make(request), key_of(tokens_per_day=100, dollars_per_month=1.0)
        await limits.admit(key)
        await limits.spend(key, tokens=99, dollars=0.5)
        await limits.admit(key)
        await limits.spend(key, tokens=5, dollars=0.1)
        with pytest.raises(BudgetSpentError, match="100 tokens of the day") as caught:
            await limits.admit(key)
        assert caught.value.retry_after_s == 12 * 3600.0
        rich = key_of(dollars_per_month=1.0)
        await limits.spend(rich, tokens=10**9, dollars=0.75)
        await limits.admit(rich)
        await limits.spend(rich, tokens=0, dollars=0.25)
        with pytest.raises(BudgetSpentError, match="1 dollars of the month"):
            await limits.admit(rich)

    async def test_no_limit_is_no_limit(self, request: pytest.FixtureRequest) -> None:
        limits, key = await self.make(request), key_of()
        await limits.spend(key, tokens=10**9, dollars=1e9)
        for _ in range(200):
            await limits.admit(key)

    async def test_racing_requests_share_one_bucket(self, request: pytest.FixtureRequest) -> None:
        limits, key = await self.make(request), key_of(requests_per_minute=10)
        outcomes = await asyncio.gather(*(limits.admit(key) for _ in range(30)), return_exceptions=True)
        assert outcomes.count(None) == 10


class TestMemoryLimits(LimitsContract):
    async def make(self, request: pytest.FixtureRequest) -> Limits:
        return MemoryLimits(clock=lambda: NOON)

    async def test_a_new_day_has_a_new_budget(self) -> None:
        now = NOON
        limits, key = MemoryLimits(clock=lambda: now), key_of(tokens_per_day=1)
        await limits.spend(key, tokens=1, dollars=0)
        with pytest.raises(BudgetSpentError):
            await limits.admit(key)
        now += 12 * 3600
        await limits.admit(key)


@pytest.mark.redis
class TestRedisLimits(LimitsContract):
    client: RedisClient

    @pytest_asyncio.fixture(autouse=True)
    async def _closing(self) -> AsyncIterator[None]:
        yield
        await self.client.aclose()

    async def make(self, request: pytest.FixtureRequest) -> Limits:
        self.client = RedisClient(request.getfixturevalue("redis_url"), timeout_s=5.0)
        return RedisLimits(self.client, clock=lambda: NOON)

    async def test_a_lost_redis_lets_requests_in(self, redis_server: RedisServer) -> None:
        self.client = RedisClient(redis_server.url, timeout_s=5.0)
        limits = RedisLimits(self.client)
        key = key_of(requests_per_minute=1, tokens_per_day=1)
        redis_server.kill()
        for _ in range(3):
            await limits.admit(key)
            await limits.spend(key, tokens=5, dollars=1.0)


async def test_a_clock_that_is_set_back_locks_no_key_out() -> None:
    now_s = 1e9
    limits = MemoryLimits(clock=lambda: now_s)
    key = key_of(requests_per_minute=6)
    for _ in range(6):
        await limits.admit(key)
    now_s -= 3600
    with pytest.raises(RateLimitError) as caught:  # its minute's worth is still taken
        await limits.admit(key)
    assert caught.value.retry_after_s == pytest.approx(10.0)
    now_s += 10.0
    await limits.admit(key)
