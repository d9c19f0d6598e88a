from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.detokenizer import Detokenizer, StopStrings


def decode_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


@given(st.text())
def test_pieces_join_to_the_text_and_hold_no_half_character(text: str) -> None:
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.push([byte]) for byte in text.encode()]
    assert "".join(pieces) + detokenizer.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.binary(max_size=60), st.lists(st.integers(1, 5), max_size=60))
def test_no_byte_is_lost_even_if_they_are_not_utf8(data: bytes, sizes: list[int]) -> None:
    detokenizer = Detokenizer(decode_bytes)
    ids, out = list(data), ""
    for size in sizes:
        out += detokenizer.push(ids[:size])
        ids = ids[size:]
    out += detokenizer.push(ids) + detokenizer.flush()
    clean = [char for char in data.decode(errors="replace") if char != "\ufffd"]
    assert [char for char in out if char != "\ufffd"] == clean


def test_half_a_character_waits_for_the_rest() -> None:
    detokenizer = Detokenizer(decode_bytes)
    assert detokenizer.push("é".encode()[:1]) == ""
    assert detokenizer.push("é".encode()[1:]) == "é"


def test_half_a_character_at_the_end_is_flushed_as_a_replacement() -> None:
    detokenizer = Detokenizer(decode_bytes)
    assert detokenizer.push("ab€".encode()[:-1]) == "ab"
    assert detokenizer.flush() == "\ufffd"


@given(st.text("ab|"), st.lists(st.text("ab|", min_size=1, max_size=4), max_size=3), st.integers(1, 4))
def test_output_ends_where_the_first_stop_string_begins(text: str, stops: list[str], size: int) -> None:
    stop_strings, out = StopStrings(stops), ""
    for start in range(0, len(text), size):
        out += stop_strings.push(text[start : start + size])
        if stop_strings.hit:
            break
    else:
        out += stop_strings.flush()
    found = [text.find(stop) for stop in stops if stop in text]
    assert stop_strings.hit == bool(found)
    if found:
        # A longer stop string may begin earlier and end later than one that is complete first.
        end = min(text.find(stop) + len(stop) for stop in stops if stop in text)
        assert out == text[: len(out)]
        assert len(out) <= end
        assert not any(stop in out for stop in stops)
    else:
        assert out == text


@pytest.mark.parametrize(("pieces", "expected"), [(["ab<en", "d>cd"], "ab"), (["a<e", "<end", ">"], "a<e")])
def test_a_stop_string_across_pieces(pieces: list[str], expected: str) -> None:
    stop_strings = StopStrings(["<end>"])
    assert "".join(stop_strings.push(piece) for piece in pieces) == expected
    assert stop_strings.hit
