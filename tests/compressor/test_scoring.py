from __future__ import annotations

import io
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.scoring import ModelFileError, Moment, best_spans, load_default
from sluice.compressor.scoring.features import FEATURES, FeatureReader
from sluice.compressor.scoring.forest import Forest, read_forest, write_forest
from sluice.compressor.scoring.shapes import SHAPES, shapes
from tests.compressor.conversations import call, file_lines, numbered, result
from tests.compressor.test_evidence import READ, USER, evidence_of

TASK = {"role": "user", "content": "value_b7 is wrong: make compute return integers"}


def column(name: str) -> int:
    return FEATURES.index(name)


def read_file(call_id: str, path: str, lines: list[str]) -> list[dict[str, Any]]:
    return [call(call_id, "Read", file_path=path), result(call_id, numbered(lines))]


def test_features_of_each_line_are_finite_and_named() -> None:
    evidence = evidence_of([TASK, *read_file("1", "b.py", file_lines(30, "b"))])
    table = FeatureReader().read(evidence, evidence.segments, Moment.ARRIVAL)
    assert table.features.shape == (30, len(FEATURES))
    assert np.isfinite(table.features).all()
    assert len(set(FEATURES)) == len(FEATURES)


def test_at_arrival_the_copy_above_keeps_a_fact_and_at_an_epoch_the_newest_does() -> None:
    lines = file_lines(4, "b")
    evidence = evidence_of([USER, *read_file("1", "b.py", lines), *read_file("2", "b.py", lines)])
    arrival = FeatureReader().read(evidence, evidence.segments[1:], Moment.ARRIVAL)
    epoch = FeatureReader().read(evidence, evidence.segments, Moment.EPOCH)
    assert not arrival.is_line_fact.any()
    assert not arrival.has_word_fact.any()
    assert epoch.is_line_fact.tolist() == [False] * 4 + [True] * 4
    assert epoch.has_word_fact.tolist() == [False] * 4 + [True] * 4


def test_what_has_been_omitted_keeps_nothing() -> None:
    lines = file_lines(4, "b")
    evidence = evidence_of([USER, *read_file("1", "b.py", lines), *read_file("2", "b.py", lines)])
    evidence.omit(evidence.segments[1], 0, 4)
    epoch = FeatureReader().read(evidence, evidence.segments, Moment.EPOCH)
    assert epoch.is_line_fact.tolist() == [True] * 4 + [False] * 4
    evidence.omit(evidence.segments[0], 0, 4)
    arrival = FeatureReader().read(evidence, evidence.segments[1:], Moment.ARRIVAL)
    assert not arrival.is_line_fact.any()


def test_what_the_agent_has_written_is_no_fact_any_more() -> None:
    quoted = file_lines(4, "b")[2].strip()
    edit = call("2", "Edit", file_path="b.py", old_string=quoted, new_string="")
    evidence = evidence_of([USER, *read_file("1", "b.py", file_lines(4, "b")), edit])
    table = FeatureReader().read(evidence, evidence.segments, Moment.EPOCH)
    assert table.is_line_fact.tolist() == [True, True, False, True]
    assert table.features[:, column("is_written_since")].tolist() == [0, 0, 1, 0]
    assert (table.features[:, column("num_edits_since")] == 1).all()
    assert table.features[:, column("written_since_within_2")].tolist() == [1, 1, 1, 1]


def test_a_line_that_speaks_of_the_task_is_seen() -> None:
    evidence = evidence_of([TASK, *read_file("1", "b.py", file_lines(9, "b"))])
    table = FeatureReader().read(evidence, evidence.segments, Moment.ARRIVAL)
    task_words = table.features[:, column("num_task_words")]
    assert task_words.argmax() == 7


def test_a_batch_scores_as_its_segments_do_alone() -> None:
    scorer = load_default()
    evidence = evidence_of(
        [TASK, *read_file("1", "a.py", file_lines(9, "a")), *read_file("2", "b.py", file_lines(5, "b"))]
    )
    both = scorer.score(evidence, evidence.segments, Moment.EPOCH)
    alone = [scorer.score(evidence, [found], Moment.EPOCH)[0] for found in evidence.segments]
    assert both == alone
    assert [len(scores) for scores in both] == [9, 5]


def test_the_shipped_scorer_gives_probabilities_and_prefers_names_to_blank_lines() -> None:
    scorer = load_default()
    lines = [*file_lines(6, "b"), "", "", "", "", "", "", *file_lines(6, "c")]
    evidence = evidence_of([TASK, *read_file("1", "src/b.py", lines)])
    (scores,) = scorer.score(evidence, evidence.segments, Moment.ARRIVAL)
    assert all(0 <= score <= 1 for score in scores)
    assert min(scores[0:6]) > max(scores[8:10])


def test_nothing_to_score_and_empty_results_are_fine() -> None:
    scorer = load_default()
    evidence = evidence_of([USER, call("1", "Bash", command="true"), result("1", "")])
    assert scorer.score(evidence, [], Moment.EPOCH) == []
    assert [len(scores) for scores in scorer.score(evidence, evidence.segments, Moment.ARRIVAL)] == [1]


def test_scoring_does_not_depend_on_what_was_scored_before() -> None:
    one, other = load_default(), load_default()
    evidence = evidence_of(READ)
    one.score(evidence, evidence.segments, Moment.ARRIVAL)
    assert one.score(evidence, evidence.segments, Moment.EPOCH) == other.score(
        evidence, evidence.segments, Moment.EPOCH
    )


def test_the_package_is_imported_without_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None; import sluice.compressor.scoring, sluice.compressor.evidence"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shapes_tell_code_from_prose() -> None:
    found = [
        dict(zip(SHAPES, shape, strict=True))
        for shape in shapes(["def parse(text):", "    import os", "  }", "E   ValueError: bad", "export class Foo {"])
    ]
    assert [line["is_definition"] for line in found] == [True, False, False, False, True]
    assert [line["is_import"] for line in found] == [False, True, False, False, False]
    assert [line["is_blank"] for line in found] == [False, False, True, False, False]
    assert found[3]["is_failure"]
    assert [line["lines_since_definition"] for line in found] == [0, 1, 2, 3, 0]


def small_forest() -> Forest:
    """One head; one tree: x0 <= 1 ? 1 : (x1 <= 5 ? 2 : 4), and one constant tree."""
    everything = 0xFFFFFFFF
    return Forest(
        heads=("only",),
        features=("x0", "x1"),
        head_of_tree=np.array([0, 0]),
        feature=np.array([[0, 0], [1, 0]]),
        threshold=np.array([[1, np.inf], [5, np.inf]], dtype=np.float32),
        clears=np.array([[everything & ~1, everything], [everything & ~2, everything]], dtype=np.uint32),
        leaf=np.array([[1, 2, 4], [0.5, 0, 0]], dtype=np.float32),
    )


def test_a_forest_sums_the_leaves_that_a_line_reaches() -> None:
    rows = np.array([[1, 9], [2, 5], [2, 5.5], [0, 0]], dtype=np.float32)
    assert small_forest().margins(rows)[:, 0].tolist() == [1.5, 2.5, 4.5, 1.5]
    many = np.tile(rows, (2_000, 1))
    assert small_forest().margins(many)[-4:, 0].tolist() == [1.5, 2.5, 4.5, 1.5]


def test_a_forest_survives_its_file(tmp_path: Path) -> None:
    write_forest(tmp_path / "m.npz", small_forest(), {"version": "7"})
    forest, note = read_forest(tmp_path / "m.npz")
    assert note == {"version": "7"}
    assert forest.features == ("x0", "x1")
    assert forest.margins(np.array([[2, 6]], dtype=np.float32)).tolist() == [[4.5]]


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_broken_model_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"bad\.npz"):
        read_forest(tmp_path / "bad.npz")


def test_a_file_that_is_no_forest_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, other=np.zeros(2))
    (tmp_path / "bad.npz").write_bytes(stream.getvalue())
    with pytest.raises(ModelFileError, match=r"bad\.npz"):
        read_forest(tmp_path / "bad.npz")
    with pytest.raises(ModelFileError, match=r"absent\.npz"):
        read_forest(tmp_path / "absent.npz")


def value_of(spans: list[tuple[int, int]], losses: list[float], tokens: list[float], price: float) -> float:
    dropped = [line for start, stop in spans for line in range(start, stop)]
    return sum(price * tokens[line] - losses[line] for line in dropped) - price * 10 * len(spans)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40)), max_size=9), st.sampled_from([0.001, 0.01, 0.05]))
def test_spans_save_as_much_as_the_best_choice_of_lines(lines: list[tuple[float, int]], price: float) -> None:
    losses, tokens = [loss for loss, _ in lines], [float(num) for _, num in lines]
    spans = best_spans(losses, tokens, price=price, marker_tokens=10)
    best = 0.0
    for size in range(len(lines) + 1):
        for chosen in combinations(range(len(lines)), size):
            runs: list[tuple[int, int]] = []
            for line in chosen:
                if runs and runs[-1][1] == line:
                    runs[-1] = (runs[-1][0], line + 1)
                else:
                    runs.append((line, line + 1))
            best = max(best, value_of(runs, losses, tokens, price))
    assert value_of(spans, losses, tokens, price) == pytest.approx(best, abs=1e-6)


def test_lines_that_are_gone_stay_gone_and_lend_their_marker() -> None:
    is_fixed = [False, True, True, False, False]
    spans = best_spans([0.0, 0, 0, 0, 1], [5.0] * 5, price=0.01, marker_tokens=10, is_fixed=is_fixed)
    assert spans == [(0, 4)]
    assert best_spans([1.0] * 5, [5.0] * 5, price=0.01, marker_tokens=10, is_fixed=is_fixed) == [(1, 3)]


def test_short_spans_are_left_alone() -> None:
    assert best_spans([0.0, 1, 1], [90.0] * 3, price=0.001, marker_tokens=10) == [(0, 1)]
    assert best_spans([0.0, 1, 1], [90.0] * 3, price=0.001, marker_tokens=10, min_lines=2) == []
