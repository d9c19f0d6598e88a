from __future__ import annotations

from typing import Any

from hypothesis import given

from sluice.compressor.evidence import IS_NUMBER, IS_PATH, IS_TELLING, Evidence, SegmentEvidence
from tests.compressor.conversations import READ, USER, call, evidence_of, result, turns


def segment(evidence: Evidence, number: int = 0) -> SegmentEvidence:
    return evidence.segments[number]


def test_a_result_is_found_by_its_place_in_the_conversation() -> None:
    evidence = evidence_of(READ)
    found = evidence.segment_at(3, 0)
    assert found is segment(evidence)
    assert found.lines.bodies == ("def load_config(path):", "    pass")
    assert evidence.segment_at(2, 0) is None
    assert (evidence.num_results, evidence.num_messages) == (1, 3)


def last_said(evidence: Evidence, word: str) -> int:
    return evidence.word_said[evidence._words[word]]


def test_a_word_knows_who_said_it_last() -> None:
    evidence = evidence_of([*READ, {"role": "assistant", "content": "`load_config` lacks a check_value call"}])
    assert last_said(evidence, "load_config") == 4
    assert last_said(evidence, "src/config.py") == 1


def test_tool_output_says_nothing() -> None:
    evidence = evidence_of([USER, call("1", "Bash", command="ls"), result("1", "hidden_name.py")])
    assert last_said(evidence, "hidden_name.py") == 0


def test_words_are_told_from_prose_numbers_and_paths() -> None:
    evidence = evidence_of([{"role": "user", "content": "sentence snake_case src/a_file.py 12345 camelCase"}])
    flags = dict(
        zip(["sentence", "snake_case", "src/a_file.py", "12345", "camelCase"], evidence.word_flags, strict=True)
    )
    assert flags["sentence"] == 0
    assert flags["snake_case"] == flags["camelCase"] == IS_TELLING
    assert flags["src/a_file.py"] == IS_TELLING | IS_PATH
    assert flags["12345"] == IS_TELLING | IS_NUMBER


def test_a_quoted_line_counts_as_written() -> None:
    edit = call("2", "Edit", file_path="/w/other.py", old_string="def load_config(path):", new_string="x")
    before, after = evidence_of(READ), evidence_of([*READ, edit])
    assert [each.key_written[each.line_key[segment(each).start]] for each in (before, after)] == [0, 4]


def test_a_file_is_named_by_its_last_part() -> None:
    evidence = evidence_of([*READ, {"role": "assistant", "content": "now config.py is clear"}])
    assert evidence.last_named("/w/src/config.py") == 4
    assert evidence.last_named("/w/src/else.py") == 0


def test_calls_are_found_by_their_file_and_by_their_command() -> None:
    evidence = evidence_of(
        [
            *READ,
            call("2", "Edit", file_path="src/config.py", old_string="a", new_string="b"),
            call("3", "Edit", file_path="src/else.py", old_string="a", new_string="b"),
            call("4", "Bash", command="pytest -q"),
            call("5", "Bash", command="pytest -q"),
        ]
    )
    assert evidence.files.edits("/w/src/config.py") == [4], "two spellings of one file"
    assert evidence.files.edits("src/else.py") == [5]
    assert evidence.files.reads("src/config.py") == [2]
    assert evidence.runs("pytest -q") == [6, 7]
    assert evidence.edit_positions == [4, 5]


def test_a_person_is_told_from_an_observation() -> None:
    observation = {"role": "user", "content": "<returncode>0</returncode>\n<output>\nsome_name\n</output>"}
    asked = {"role": "assistant", "content": "```bash\nls\n```"}
    evidence = evidence_of([USER, asked, observation])
    assert evidence.user_positions == [1]
    assert evidence.num_results == 1
    assert evidence.first_task == evidence.latest_task


def test_what_is_omitted_is_no_longer_shown() -> None:
    evidence = evidence_of([*READ, *READ[1:]])
    word = evidence._words["load_config"]
    assert evidence.word_num_visible[word] == 2
    evidence.omit(segment(evidence), 0, 1)
    evidence.omit(segment(evidence), 0, 1)
    assert evidence.word_num_visible[word] == 1
    assert list(evidence.line_visible) == [0, 1, 1, 1]


@given(turns())
def test_the_columns_fit_together(messages: list[dict[str, Any]]) -> None:
    evidence = evidence_of(messages)
    num_lines = sum(len(found.lines) for found in evidence.segments)
    assert len(evidence.line_key) == len(evidence.line_visible) == len(evidence.line_words) - 1 == num_lines
    assert evidence.line_words[-1] == len(evidence.shown_words) == sum(evidence.word_num_visible)
    assert len(evidence.num_results_at) == evidence.num_messages + 1
    assert max(evidence.shown_words, default=-1) < len(evidence.word_flags) == len(evidence.word_said)
    for found in evidence.segments:
        evidence.omit(found, 0, len(found.lines))
    assert not any(evidence.word_num_visible)
    assert not any(evidence.key_num_visible)
