from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.lines import join, split


@given(st.text() | st.text(alphabet="ab\n\r\t 1:→|"))
def test_split_loses_nothing(text: str) -> None:
    lines = split(text)
    assert join(list(lines.texts), ends_with_newline=lines.ends_with_newline) == text
    for line, body, number in zip(lines.texts, lines.bodies, lines.numbers, strict=True):
        assert line.endswith(body)
        assert (number is None) == (line == body)


@pytest.mark.parametrize(
    "text",
    ["    41→a = 1\n    42→\n    43→b", "    41\ta = 1\n    42\t\n    43\tb", "00041| a = 1\n00042| \n00043| b",
     "41: a = 1\n42: \n43: b", "41:a = 1\n42-\n43:b"],
)  # fmt: skip
def test_gutters_of_the_agents_in_the_field(text: str) -> None:
    lines = split(text)
    assert lines.numbers == (41, 42, 43)
    assert lines.bodies == ("a = 1", "", "b")


def test_numbers_that_do_not_run_on_are_text() -> None:
    lines = split("10:30 standup\n12:00 lunch\n7: seven")
    assert lines.numbers == (None, None, None)
    assert lines.bodies == lines.texts
