from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.said import MAX_CHARS, clipped
from sluice.compressor.scoring.neural.windows import WindowMaker, WindowShape
from tests.compressor.conversations import Json, call, evidence_of, result
from tests.compressor.scoring.neural.doubles import Bytes

BEGIN, END, FEED = 1, 2, 3
SHAPE = WindowShape(
    max_tokens=96, task=12, user=8, history=16, call=8, line=12, overlap=8,
    begin=(BEGIN,), end_of_context=(END,), end_of_line=(FEED,),
)  # fmt: skip


def text_of(token_ids: Sequence[int]) -> str:
    return bytes(one - 10 for one in token_ids if one >= 10).decode("utf-8", "replace")


def conversation(output: str) -> list[Json]:
    return [
        {"role": "user", "content": "fix the bug"},
        {**call("1", "Bash", command="make test"), "content": "I run the tests."},
        result("1", output),
    ]


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30), min_size=1))
def test_every_line_is_scored_in_one_window_in_order(lines: list[str]) -> None:
    evidence = evidence_of(conversation("\n".join(lines)))
    (segment,) = evidence.segments
    windows = WindowMaker(Bytes(), SHAPE).windows(evidence, [segment])
    scored = [window.first_line + at for window in windows for at in range(len(window.line_ends))]
    assert scored == list(range(len(segment.lines)))
    for window in windows:
        assert len(window.token_ids) <= SHAPE.max_tokens
        assert window.line_ends[-1] == len(window.token_ids) - 1
        assert (window.token_ids[window.line_ends] == FEED).all()
        assert np.diff(np.concatenate([[window.num_context_tokens - 1], window.line_ends])).max() <= SHAPE.line


def test_a_window_holds_task_and_call_and_the_lines_above() -> None:
    evidence = evidence_of(conversation("\n".join(f"line {number}" for number in range(40))))
    first, second, *_ = WindowMaker(Bytes(), SHAPE).windows(evidence, evidence.segments)
    context = text_of(first.token_ids[: first.num_context_tokens].tolist())
    assert context.startswith("Task: fix th")
    assert "Result: " in context
    above = second.token_ids[: second.num_context_tokens].tolist()
    last_of_first = first.token_ids[first.line_ends[-2] + 1 :].tolist()
    assert above[-len(last_of_first) :] == last_of_first


def test_what_is_said_later_changes_no_window() -> None:
    messages = conversation("some\nlines\nof output")
    later = [*messages, {"role": "assistant", "content": "done"}, {"role": "user", "content": "more, please"}]
    before, after = (evidence_of(each) for each in (messages, later))
    one, other = (WindowMaker(Bytes(), SHAPE).windows(each, each.segments[:1]) for each in (before, after))
    assert [window.key for window in one] == [window.key for window in other]


def test_a_shape_that_has_no_room_for_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        WindowShape.from_json({**SHAPE.to_json(), "max_tokens": 20})


def test_little_is_kept_of_what_was_said() -> None:
    said = clipped("user", 1, ["<system-reminder>noise</system-reminder>" + "a" * 10_000], [["b" * 9_000]] * 20)
    assert said is not None
    assert "noise" not in said.prose
    assert len(said.prose) + sum(map(len, said.calls)) <= MAX_CHARS
    assert clipped("system", 1, ["you are an agent"], []) is None
