"""Conversations are read on every pass: all of them must be of the same data."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice.eval.errors import TraceError
from sluice.eval.runner import Selection
from sluice.eval.traces import trace_file

ONE, OTHER = (trace_file(agent).read_text() for agent in ("opencode", "claude-code"))


@pytest.mark.parametrize("sample", [None, 5])
@pytest.mark.parametrize(("before", "after"), [(ONE, ONE + OTHER), (ONE + OTHER, ONE), (ONE, OTHER)])
def test_a_file_that_changes_between_passes_is_named(
    tmp_path: Path, before: str, after: str, sample: int | None
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(before)
    selection = Selection((file,), sample=sample)
    assert list(selection.lines()) == list(selection.lines())
    file.write_text(after)
    with pytest.raises(TraceError) as caught:
        list(selection.lines())
    assert str(caught.value) == f"{file}: changed while it was replayed; copy it first"


def test_what_is_not_selected_may_grow(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(ONE)
    for selection in (Selection((file,), limit=1), Selection((file,), agent="opencode")):
        assert len(list(selection.lines())) == 1
        file.write_text(ONE + OTHER)
        assert len(list(selection.lines())) == 1


def test_a_pass_that_ends_early_says_nothing_of_what_follows(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(ONE + OTHER)
    selection = Selection((file,))
    assert next(selection.lines()).number == 1
    assert len(list(selection.lines())) == 2
