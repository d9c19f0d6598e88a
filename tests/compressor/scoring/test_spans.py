from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.scoring import best_spans


def value_of(spans: list[tuple[int, int]], losses: list[float], tokens: list[float], price: float) -> float:
    dropped = [line for start, stop in spans for line in range(start, stop)]
    return sum(price * tokens[line] - losses[line] for line in dropped) - price * 10 * len(spans)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40)), max_size=9), st.sampled_from([0.001, 0.01, 0.05]))
def test_spans_save_as_much_as_the_best_choice_of_lines(lines: list[tuple[float, int]], price: float) -> None:
    losses, tokens = [loss for loss, _ in lines], [float(num) for _, num in lines]
    spans = best_spans(losses, tokens, price=price, marker_tokens=10)
    best = 0.0
    for size in range(len(lines) + 1):
        for chosen in combinations(range(len(lines)), size):
            runs: list[tuple[int, int]] = []
            for line in chosen:
                if runs and runs[-1][1] == line:
                    runs[-1] = (runs[-1][0], line + 1)
                else:
                    runs.append((line, line + 1))
            best = max(best, value_of(runs, losses, tokens, price))
    assert value_of(spans, losses, tokens, price) == pytest.approx(best, abs=1e-6)


def test_lines_that_are_gone_stay_gone_and_lend_their_marker() -> None:
    is_fixed = [False, True, True, False, False]
    spans = best_spans([0.0, 0, 0, 0, 1], [5.0] * 5, price=0.01, marker_tokens=10, is_fixed=is_fixed)
    assert spans == [(0, 4)]
    assert best_spans([1.0] * 5, [5.0] * 5, price=0.01, marker_tokens=10, is_fixed=is_fixed) == [(1, 3)]


def test_short_spans_are_left_alone() -> None:
    assert best_spans([0.0, 1, 1], [90.0] * 3, price=0.001, marker_tokens=10) == [(0, 1)]
    assert best_spans([0.0, 1, 1], [90.0] * 3, price=0.001, marker_tokens=10, min_lines=2) == []
