from __future__ import annotations

from sluice.proxy.breaker import Breaker


def test_it_opens_after_failures_in_a_row_and_lets_one_in_now_and_then() -> None:
    now = 100.0
    breaker = Breaker(max_failures=2, retry_s=5.0, clock=lambda: now)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.admits()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    assert not breaker.admits()
    now += 5.0
    assert [breaker.admits(), breaker.admits()] == [True, False]
    breaker.failed()
    now += 4.9
    assert not breaker.admits()
    now += 0.1
    assert breaker.admits()
    breaker.succeeded()
    assert [breaker.admits(), breaker.admits()] == [True, True]
