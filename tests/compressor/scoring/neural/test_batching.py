from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.scoring.neural.batching import Pace, Waiting, fitted, num_in_time, plan, rectangles

waiting = st.lists(st.builds(Waiting, st.integers(1, 600), st.floats(0, 10)), max_size=40)
paces = st.builds(Pace, st.floats(0, 2), st.floats(1e-4, 1e-2))


def can_be_served(windows: list[Waiting], now_s: float, pace: Pace) -> bool:
    num_tokens = sum(window.num_tokens for window in windows)
    return all(pace.tokens_within(window.expires_at_s - now_s) >= num_tokens for window in windows)


@given(waiting, st.floats(0, 10), paces, st.integers(1, 2_000))
def test_a_batch_is_of_those_that_it_serves_in_time(
    queue: list[Waiting], now_s: float, pace: Pace, max_tokens: int
) -> None:
    chosen = plan(queue, now_s=now_s, pace=pace, max_tokens=max_tokens)
    batch, late = [queue[index] for index in chosen.batch], {*chosen.late}
    assert len({*chosen.batch}) == len(batch)
    assert not {*chosen.batch} & late
    sizes = [window.num_tokens for window in batch]
    assert sizes == sorted(sizes)
    assert sum(sizes) <= max_tokens or len(sizes) == 1
    assert can_be_served(batch, now_s, pace)
    assert batch or len(late) == len(queue), "whoever is not served is told so, unless others are served first"
    ends_at_s = now_s + pace.seconds(sum(sizes)) if batch else now_s
    for index, window in enumerate(queue):
        if index not in chosen.batch:
            assert (index in late) != can_be_served([window], ends_at_s, pace)


@given(waiting, st.floats(0, 10), paces, st.integers(1, 2_000))
def test_no_other_batch_does_twice_as_much_in_a_second(
    queue: list[Waiting], now_s: float, pace: Pace, max_tokens: int
) -> None:
    def per_s(windows: list[Waiting]) -> float:
        num_tokens = sum(window.num_tokens for window in windows)
        return num_tokens / pace.seconds(num_tokens) if windows else 0.0

    chosen = plan(queue, now_s=now_s, pace=pace, max_tokens=max_tokens)
    most = 2 * per_s([queue[index] for index in chosen.batch]) * (1 + 1e-9)
    by_expiry = sorted(queue, key=lambda window: window.expires_at_s)
    for first in range(len(queue)):
        for end in range(first + 1, len(queue) + 1):
            run = by_expiry[first:end]
            if sum(window.num_tokens for window in run) <= max_tokens and can_be_served(run, now_s, pace):
                assert per_s(run) <= most


def test_who_leaves_no_time_for_others_is_given_up() -> None:
    urgent, others = Waiting(100, 0.0205), [Waiting(100, 0.030)] * 20
    chosen = plan([urgent, *others], now_s=0.0, pace=Pace(0.020, 1e-6), max_tokens=30_000)
    assert (sorted(chosen.batch), chosen.late) == (list(range(1, 21)), (0,))
    chosen = plan([urgent, *others[:1]], now_s=0.0, pace=Pace(0.001, 9e-5), max_tokens=30_000)
    assert (sorted(chosen.batch), chosen.late) == ([0, 1], ())


@given(st.lists(st.integers(1, 600), max_size=40), st.integers(1, 2_000))
def test_none_is_lost_none_comes_twice_and_none_starves(sizes: list[int], max_tokens: int) -> None:
    left, done = [(number, Waiting(size, 1e9 + number)) for number, size in enumerate(sizes)], []
    for _ in sizes:
        if not left:
            break
        chosen = plan([window for _, window in left], now_s=0.0, pace=Pace(0.0, 1e-5), max_tokens=max_tokens)
        assert 0 in chosen.batch  # with time for all, the oldest is always served
        done += [left[index][0] for index in chosen.batch]
        left = [entry for index, entry in enumerate(left) if index not in chosen.batch]
    assert sorted(done) == list(range(len(sizes)))


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


def test_a_batch_is_never_mostly_what_each_batch_costs() -> None:
    quick, slow = Pace(0.002, 1e-6), Pace(0.017, 1e-6)
    assert quick.tokens_at_once(0.01) == quick.tokens_within(0.01)
    assert slow.tokens_within(0.01) == 0
    assert slow.tokens_at_once(0.01) == pytest.approx(17_000, abs=1)


def test_what_slow_batches_told_is_forgotten_in_time() -> None:
    start, now = Pace(0.005, 1e-7), Pace(0.045, 9e-7)
    assert now.recovered(start, 0.0) == now
    later = now.recovered(start, 1.0)
    assert (later.fixed_s, later.per_token_s) == (pytest.approx(0.025), pytest.approx(5e-7))
    at_last = later.recovered(start, 59.0)
    assert at_last.fixed_s == pytest.approx(now.recovered(start, 60.0).fixed_s) == pytest.approx(start.fixed_s)
