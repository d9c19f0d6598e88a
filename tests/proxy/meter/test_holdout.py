from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.meter.holdout import MIN_CONVERSATIONS, Spent, compare
from tests.effort import examples


def conversations(num: int, cost_per_turn: float, seed: int) -> list[Spent]:
    """Conversations of different lengths, whose turns cost about so much."""
    draw = random.Random(seed)
    lengths = [draw.randint(1, 60) for _ in range(num)]
    return [Spent(length, length * cost_per_turn * draw.uniform(0.5, 1.5)) for length in lengths]


def test_a_difference_is_measured_with_its_interval() -> None:
    got = compare(conversations(400, 0.8, 1), conversations(100, 1.0, 2))
    assert got.per_turn is not None
    assert got.per_turn.low is not None
    assert got.per_turn.high is not None
    assert got.per_turn.low < 0.2 < got.per_turn.high
    assert 0 < got.per_turn.low < got.per_turn.share < got.per_turn.high < 0.4
    assert "is shown" in got.note


def test_no_difference_is_not_sold_as_one() -> None:
    got = compare(conversations(100, 1.0, 3), conversations(100, 1.0, 4))
    assert got.per_turn is not None
    assert got.per_turn.low is not None
    assert got.per_turn.high is not None
    assert got.per_turn.low <= 0 <= got.per_turn.high
    assert "holds 0" in got.note


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    num_held = 0
    for seed in range(60):
        got = compare(conversations(80, 0.9, 2 * seed), conversations(40, 1.0, 2 * seed + 1))
        assert got.per_turn is not None
        assert got.per_turn.low is not None
        assert got.per_turn.high is not None
        num_held += got.per_turn.low <= 0.1 <= got.per_turn.high
    print(f"{num_held} of 60 intervals hold the truth")
    assert num_held >= 51


def test_too_little_data_is_said() -> None:
    got = compare(conversations(500, 0.5, 5), conversations(MIN_CONVERSATIONS - 1, 1.0, 6))
    assert got.per_turn is not None
    assert got.per_turn.low is got.per_turn.high is None
    assert f"{MIN_CONVERSATIONS - 1} held out" in got.note
    nothing = compare(conversations(500, 0.5, 5), [])
    assert nothing.per_turn is None
    assert "not measured" in nothing.note


spent = st.lists(st.builds(Spent, st.integers(1, 100), st.floats(0, 50)), max_size=40)


@given(treated=spent, held_out=spent)
@examples(30)
def test_any_data_are_compared(treated: list[Spent], held_out: list[Spent]) -> None:
    got = compare(treated, held_out)
    for saving in (got.per_turn, got.per_conversation):
        if saving is not None and saving.low is not None and saving.high is not None:
            assert saving.low <= saving.high <= 1


def test_longer_conversations_count_against_the_saving() -> None:
    """Where compression makes the agent take twice the turns, its conversations are no cheaper."""
    treated = [Spent(20, 10.0)] * 30
    held_out = [Spent(10, 10.0)] * 30
    got = compare(treated, held_out)
    assert got.per_turn is not None
    assert got.per_conversation is not None
    assert (got.per_turn.share, got.per_conversation.share) == (0.5, 0.0)
