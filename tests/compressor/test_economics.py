from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.economics import Billed, Load, Rewrite, plan_rewrite, turn_saving
from sluice.compressor.profiles import PROFILES

ANTHROPIC = PROFILES["anthropic"]

loads = st.lists(
    st.tuples(st.floats(0, 1e5), st.floats(0, 1)).map(lambda pair: Load(pair[0], pair[0] * pair[1])), max_size=12
)


def plan(history: list[Load], **changes: object) -> Rewrite | None:
    arguments = {
        "is_cold": False,
        "is_needed": False,
        "num_turns": 30,
        "banked": 1e9,
        "margin": 4.0,
        "max_turns_ahead": 60,
    }
    return plan_rewrite(history, ANTHROPIC, **(arguments | changes))  # type: ignore[arg-type]


def test_a_rewrite_pays_where_much_dies_and_little_follows() -> None:
    # 10,000 dead tokens, 2,000 kept behind them: 2,000 × 1.15 − 10,000 × 0.1 now, 10,000 × 0.1 × 30 later.
    rewrite = plan([Load(1_000), Load(10_000, 10_000), Load(2_000)])
    assert rewrite == Rewrite(1, pytest.approx(1_300), "pays")
    assert plan([Load(1_000), Load(2_000, 2_000), Load(30_000)]) is None


def test_nothing_is_spent_that_was_not_saved() -> None:
    history = [Load(10_000, 10_000), Load(2_000)]
    assert plan(history, banked=1_299) is None
    assert plan(history, banked=1_301) is not None


def test_a_cold_cache_makes_it_free() -> None:
    rewrite = plan([Load(100), Load(10, 5), Load(30_000)], is_cold=True, banked=0.0)
    assert rewrite == Rewrite(1, pytest.approx(-5 * 1.25), "cold")
    assert plan([Load(100), Load(30_000)], is_cold=True) is None


def test_where_the_request_must_shrink_it_is_rewritten_at_any_price() -> None:
    rewrite = plan([Load(10, 5), Load(30_000)], is_needed=True, banked=0.0)
    assert rewrite is not None
    assert (rewrite.start, rewrite.reason) == (0, "need")


def test_free_reads_are_not_worth_saving() -> None:
    history = [Load(10_000, 10_000), Load(2_000)]
    assert plan_rewrite(
        history, PROFILES["self-hosted"], is_cold=False, is_needed=False, num_turns=30, banked=1e9, margin=4.0,
        max_turns_ahead=60,
    ) is None  # fmt: skip


@given(loads, st.integers(0, 200), st.floats(0, 1e6))
def test_a_warm_rewrite_never_costs_more_than_was_saved(history: list[Load], num_turns: int, banked: float) -> None:
    rewrite = plan(history, num_turns=num_turns, banked=banked)
    if rewrite is not None:
        assert rewrite.cost <= banked
        assert history[rewrite.start].num_dead_tokens > 0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_untouched_request_saves_nothing(num_read: float, num_written: float) -> None:
    billed = Billed(num_read, num_written)
    assert turn_saving(billed, billed, ANTHROPIC) == 0.0


def test_what_a_rewrite_costs_is_counted() -> None:
    saving = turn_saving(Billed(200.0, 0.0), Billed(100.0, 50.0), ANTHROPIC)
    assert saving == pytest.approx(20.0 - (10.0 + 62.5))
