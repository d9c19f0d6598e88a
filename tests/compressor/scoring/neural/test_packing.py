from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.scoring.neural.packing import MIN_SHARED_TOKENS, pack, shared_beginnings
from sluice.compressor.scoring.neural.types import Window


@st.composite
def alike(draw: st.DrawFn) -> list[Window]:
    """Windows of which some begin alike."""
    beginnings = draw(st.lists(st.lists(st.integers(0, 5), min_size=30, max_size=90), min_size=1, max_size=3))
    windows = []
    for _ in range(draw(st.integers(1, 8))):
        begin = draw(st.sampled_from(beginnings))
        ids = [*begin[: draw(st.integers(0, len(begin)))], *draw(st.lists(st.integers(0, 5), min_size=1, max_size=40))]
        ends = sorted(draw(st.sets(st.integers(0, len(ids) - 1), min_size=1, max_size=4)))
        windows.append(Window(np.array(ids, np.int32), np.array(ends, np.int32), 0, 0, 0))
    return windows


@given(alike(), st.booleans())
def test_each_window_reads_its_own_tokens_and_no_others(windows: list[Window], is_shared: bool) -> None:
    layout = pack(windows, is_shared=is_shared)
    keys = np.arange(len(layout.token_ids)) if layout.key_rows is None else layout.key_rows
    sequence_of = np.repeat(np.arange(len(layout.bounds) - 1), np.diff(layout.bounds))
    at = 0
    for window in windows:
        for end in window.line_ends:
            row = layout.line_rows[at]
            at += 1
            sequence = sequence_of[row]
            read = keys[layout.key_bounds[sequence] : layout.key_bounds[sequence + 1]]
            # The last key is the sequence's last token's own: what a line's end reads is its window so far.
            num_below = layout.bounds[sequence + 1] - 1 - row
            read = read[: len(read) - num_below]
            assert layout.token_ids[read].tolist() == window.token_ids[: end + 1].tolist()
            assert layout.places[read].tolist() == list(range(end + 1))
            assert read[-1] == row
    assert at == len(layout.line_rows)


@given(alike())
def test_nothing_is_shared_where_it_may_not_be(windows: list[Window]) -> None:
    layout = pack(windows, is_shared=False)
    assert layout.key_rows is None
    assert len(layout.token_ids) == sum(len(window.token_ids) for window in windows)


@given(alike())
def test_groups_hold_every_window_once_with_what_they_begin_with(windows: list[Window]) -> None:
    ids = [window.token_ids for window in windows]
    groups = shared_beginnings(ids)
    assert sorted(index for members, _ in groups for index in members) == list(range(len(windows)))
    for members, length in groups:
        assert length == 0 if len(members) == 1 else length >= MIN_SHARED_TOKENS
        assert len({ids[index][:length].tobytes() for index in members}) == 1


def test_windows_of_one_result_share_their_context() -> None:
    rng = np.random.default_rng(0)
    context = rng.integers(0, 999, 200)
    windows = [
        Window(
            np.concatenate([context, rng.integers(0, 999, 300)]).astype(np.int32), np.array([499], np.int32), 200, 0, 0
        )
        for _ in range(4)
    ]
    layout = pack(windows, is_shared=True)
    assert len(layout.token_ids) == 200 + 4 * 300
    assert layout.num_pairs == 200 * 201 // 2 + 4 * sum(range(201, 501))
