from __future__ import annotations

import pytest

from sluice.eval.bootstrap import ratio


def test_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    found = ratio([1, 90], [10, 100], seed=0)
    assert found is not None
    assert found.value == pytest.approx(91 / 110)  # the mean of 0.1 and 0.9 would be 0.5
    # Two conversations: a resample is one of them twice, or both.
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.9))


def test_the_same_seed_gives_the_same_interval() -> None:
    numbers, below = [1 / n for n in range(1, 30)], [float(n) for n in range(1, 30)]
    assert ratio(numbers, below, seed=3) == ratio(numbers, below, seed=3)
    assert ratio(numbers, below, seed=3) != ratio(numbers, below, seed=4)


def test_nothing_to_divide_by() -> None:
    assert ratio([0, 0], [0, 0], seed=0) is None
    found = ratio([0, 1], [0, 1], seed=0)  # resamples without any denominator are left out
    assert found is not None
    assert (found.low, found.high) == (1, 1)
