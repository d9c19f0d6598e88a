from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.lines import split
from sluice.compressor.redundancy import Source, VisibleLines

texts = st.lists(st.sampled_from(["a", "b", "", "c", "12→d", "13→e"]), max_size=14).map("\n".join)


@given(st.lists(texts, max_size=6), texts)
def test_every_run_is_visible_where_it_says(above: list[str], new: str) -> None:
    visible = VisibleLines(3)
    for position, text in enumerate(above, 1):
        visible.add(split(text), Source(position))
    lines = split(new)
    last_stop = 0
    for run in visible.find_runs(lines, lambda source: True):
        assert run.start >= last_stop
        assert len(run) >= 3
        last_stop = run.stop
        shown = split(above[run.source.position - 1]).bodies
        wanted = lines.bodies[run.start : run.stop]
        assert any(shown[i : i + len(run)] == wanted for i in range(len(shown)))


@given(st.lists(texts, min_size=1, max_size=6), st.data())
def test_nothing_of_three_lines_that_is_visible_is_missed(above: list[str], data: st.DataObject) -> None:
    visible = VisibleLines(3)
    for position, text in enumerate(above, 1):
        visible.add(split(text), Source(position))
    shown = data.draw(st.sampled_from(above))
    lines = split(shown)
    found = list(visible.find_runs(lines, lambda source: True))
    assert sum(map(len, found)) == (len(lines) if len(lines) >= 3 else 0)


def test_a_source_that_may_not_be_used_is_passed_over() -> None:
    visible = VisibleLines(3)
    visible.add(split("a\nb\nc\nd"), Source(1))
    visible.add(split("a\nb\nc"), Source(2))
    (longest,) = visible.find_runs(split("a\nb\nc\nd"), lambda source: True)
    assert (longest.source.position, len(longest)) == (1, 4)
    (allowed,) = visible.find_runs(split("a\nb\nc\nd"), lambda source: source.position == 2)
    assert (allowed.source.position, len(allowed)) == (2, 3)


def test_numbers_are_compared_apart() -> None:
    visible = VisibleLines(3)
    visible.add(split("    1→a\n    2→b\n    3→c"), Source(1))
    (same,) = visible.find_runs(split("    1→a\n    2→b\n    3→c"), lambda source: True)
    (moved,) = visible.find_runs(split("    5→a\n    6→b\n    7→c"), lambda source: True)
    (bare,) = visible.find_runs(split("a\nb\nc"), lambda source: True)
    assert (same.same_numbers, moved.same_numbers, bare.same_numbers) == (True, False, True)


def test_a_thousand_equal_lines_stay_cheap() -> None:
    visible = VisibleLines(3)
    visible.add(split("\n" * 5_000), Source(1))
    assert sum(map(len, visible.find_runs(split("\n" * 5_000), lambda source: True))) == 5_000
