from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.search.ranking.lines import Lines


@given(st.lists(st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b"\r\n", "é".encode(), b"\xe2\x82"]))))
def test_lines_are_those_of_the_decoded_text(parts: list[bytes]) -> None:
    data = b"".join(parts)
    expected = data.decode("utf-8", "replace").split("\n")
    lines = Lines(data)
    assert list(lines) == expected
    assert len(lines) == len(expected)
    for start in range(len(expected) + 1):
        assert lines[start:] == expected[start:]
        assert lines[:start] == expected[:start]
        assert lines[start : start + 2] == expected[start : start + 2]
    assert lines[-1] == expected[-1]
