from __future__ import annotations

from sluice.compressor.repeats import find_repeats


def repeats(text: str) -> list[tuple[int, int]]:
    return list(find_repeats(tuple(text.split("\n")), 3))


def test_equal_lines_keep_the_first_and_the_last() -> None:
    assert repeats("start\n" + "warning: x\n" * 8 + "end") == [(2, 8)]


def test_a_rising_percentage_keeps_its_ends() -> None:
    bars = "\n".join(f"Downloading [{'#' * n}{' ' * (10 - n)}] {n * 10}%" for n in range(11))
    assert repeats(bars) == [(1, 10)]
    assert repeats("\n".join(f"[{n}/40] Building" for n in range(1, 41))) == [(1, 39)]


def test_tables_and_lists_of_numbers_are_no_progress() -> None:
    assert repeats("\n".join(f"{n} {n * 3}" for n in range(20))) == []
    assert repeats("\n".join(f"coverage of part: {n * 37 % 100}%" for n in range(20))) == []
    assert repeats("\n".join(f"module_{name}: {n}%" for n, name in enumerate("abcdefgh"))) == []


def test_empty_lines_are_left_alone() -> None:
    assert repeats("\n" * 30) == []


def test_a_number_of_a_million_digits_is_read_once() -> None:
    assert repeats("\n".join(["7" * 1_000_000 + "a%"] * 2)) == []
