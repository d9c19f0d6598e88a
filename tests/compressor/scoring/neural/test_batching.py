from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.scoring.neural.batching import Pace, Waiting, fitted, num_in_time, plan, rectangles

waiting = st.lists(st.builds(Waiting, st.integers(1, 600), st.floats(0, 10)), max_size=40)


@given(waiting, st.floats(0, 10), st.integers(1, 2_000))
def test_a_batch_is_the_oldest_that_are_wanted_and_fit(queue: list[Waiting], now_s: float, max_tokens: int) -> None:
    chosen = plan(queue, now_s=now_s, max_tokens=max_tokens)
    batch, late = set(chosen.batch), set(chosen.late)
    assert len(batch) == len(chosen.batch)
    assert not batch & late
    assert all(queue[index].expires_at_s <= now_s for index in late)
    assert all(queue[index].expires_at_s > now_s for index in batch)
    sizes = [queue[index].num_tokens for index in chosen.batch]
    assert sizes == sorted(sizes)
    assert sum(sizes) <= max_tokens or len(sizes) == 1
    # Whoever is still wanted and older than the youngest in the batch is in it.
    assert all(index in batch for index in range(max(batch, default=0)) if queue[index].expires_at_s > now_s)
    left = [window for index, window in enumerate(queue) if index not in batch | late]
    if batch and left:
        assert sum(sizes) + left[0].num_tokens > max_tokens


@given(waiting, st.integers(1, 2_000))
def test_none_is_lost_none_comes_twice_and_none_starves(queue: list[Waiting], max_tokens: int) -> None:
    left, done = list(enumerate(queue)), []
    for _ in queue:
        if not left:
            break
        chosen = plan([window for _, window in left], now_s=-1, max_tokens=max_tokens)
        assert 0 in chosen.batch  # the oldest is always served
        done += [left[index][0] for index in chosen.batch]
        left = [entry for index, entry in enumerate(left) if index not in chosen.batch]
    assert sorted(done) == list(range(len(queue)))


@given(st.lists(st.integers(1, 600), max_size=40), st.integers(1, 5_000))
def test_rectangles_hold_all_windows_with_little_padding(sizes: list[int], max_tokens: int) -> None:
    groups = rectangles(sizes, max_tokens=max_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    for group in groups:
        inside = [sizes[index] for index in group]
        assert max(inside) * len(inside) <= 1.125 * sum(inside)
        assert max(inside) * len(inside) <= max_tokens or len(inside) == 1


@given(st.lists(st.integers(1, 600), max_size=20), st.integers(0, 5_000), st.floats(0, 0.1))
def test_what_is_begun_can_be_done_in_time(sizes: list[int], num_ahead: int, within_s: float) -> None:
    pace = Pace(0.002, 1e-5)
    num = num_in_time(sizes, num_ahead=num_ahead, pace=pace, within_s=within_s)
    assert num == 0 or pace.seconds(num_ahead + sum(sizes[:num])) <= within_s + 1e-9
    assert num == len(sizes) or pace.seconds(num_ahead + sum(sizes[: num + 1]) + 1) > within_s - 1e-9


def test_a_pace_is_told_by_two_batches_and_follows_the_machine() -> None:
    pace = fitted((100, 0.003), (1_100, 0.013))
    assert (pace.fixed_s, pace.per_token_s) == (pytest.approx(0.002), pytest.approx(1e-5))
    for _ in range(100):
        pace = pace.adjusted(1_000, 0.024)
    assert pace.seconds(1_000) == pytest.approx(0.024, rel=0.01)


def test_a_pace_is_positive_where_the_clock_is_coarse() -> None:
    pace = fitted((64, 0.01), (512, 0.01))
    assert pace.per_token_s > 0
    assert pace.tokens_within(0.001) == 0
