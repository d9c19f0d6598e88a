from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.lines import split
from sluice.compressor.provenance import Kind, Provenance
from sluice.compressor.recovery import Gap, Touch, _named, less, render, touched
from tests.compressor.conversations import file_lines, numbered

RUN = Provenance(Kind.RUN)


def gap(start: int = 10, stop: int = 30) -> Gap:
    lines = split(numbered(file_lines(40)))
    return Gap(3, 0, start, stop, lines, recall_id="7f3a" + "0" * 28, path="src/a.py", first_line=1)


def ranges(touch: Touch, *gaps: Gap) -> list[tuple[int, int]]:
    return [(found.start, found.stop) for found in touched(gaps or [gap()], touch)]


def test_an_edit_that_quotes_a_dropped_line_brings_its_surroundings_back() -> None:
    assert ranges(Touch([file_lines(40)[15]], [])) == [(10, 26)]
    assert ranges(Touch(["\n".join(file_lines(40)[14:29])], [])) == [(10, 30)]
    assert ranges(Touch([file_lines(40)[5]], [])) == [], "that line was never dropped"
    assert ranges(Touch(["}"], [])) == []


def test_a_stack_trace_brings_the_lines_around_it_back() -> None:
    for trace in ('  File "/repo/src/a.py", line 17, in load', "src/a.py:17: error", "at /repo/src/a.py(17,4)"):
        assert ranges(Touch([], [(trace, RUN)])) == [(10, 27)]
    assert ranges(Touch([], [("src/b.py:17: error", RUN)])) == []
    assert ranges(Touch([], [("src/a.py:35: error", RUN)])) == []


def test_an_agents_own_cache_that_says_unchanged() -> None:
    answer = "File unchanged since last read. The content from the earlier Read is still current."
    read = Provenance(Kind.READ, path="/repo/src/a.py")
    assert ranges(Touch([], [(answer, read)])) == [(10, 30)]
    assert ranges(Touch([], [(answer, Provenance(Kind.READ, path="/repo/src/b.py"))])) == []


def test_what_is_given_back_carries_its_numbers() -> None:
    text = render([gap(10, 13)])
    assert text.split("\n") == [
        "[sluice 7f3a: 3 lines of message 3 again, 11-13]",
        *numbered(file_lines(40)).split("\n")[10:13],
    ]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_what_is_left_is_what_was_not_given_back(a: int, b: int, c: int, d: int) -> None:
    (start, stop), (from_, to) = sorted((a, b)), sorted((c, d))
    left = {index for rest in less(gap(start, stop), from_, to) for index in range(rest.start, rest.stop)}
    assert left == set(range(start, stop)) - set(range(from_, to))


def test_a_commands_head_is_no_line_of_the_file() -> None:
    head = "Chunk ID: 7d01f2\nWall time: 0.05 seconds\nProcess exited with code 0\nOriginal token count: 400\nOutput:\n"
    lines = split(head + "\n".join(file_lines(40)))
    read = Gap(3, 0, 5, 45, lines, recall_id="7f3a" + "0" * 28, path="src/a.py", first_line=101, num_head_lines=5)
    assert [read.number(index) for index in (0, 4, 5, 44)] == [None, None, 101, 140]
    assert ranges(Touch([], [("src/a.py:101: error", RUN)]), read) == [(5, 16)]
    assert ranges(Touch([], [("src/a.py:99: error", RUN)]), read) == []


def test_a_place_is_read_to_the_beginning_of_its_path() -> None:
    text = "src/a.py:17: error, lib/src/a.py(12) and a.py:3b.py:4 but .py:5 and a.py: 6"
    assert list(_named(text)) == [("src/a.py", 17), ("lib/src/a.py", 12), ("a.py", 3), ("b.py", 4)]
    assert list(_named("src/a.py:" + "1" * 5_000)) == [], "no line has such a number"


@pytest.mark.parametrize("word", ["aB3/" * 250_000, "a." * 500_000])
def test_a_megabyte_in_one_word_is_read_once(word: str) -> None:
    """An image in base64, say: to begin anew at each of its characters would take days."""
    assert list(_named(f"{word} at src/a.py:17")) == [("src/a.py", 17)]
