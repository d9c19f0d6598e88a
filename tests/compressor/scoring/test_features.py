from __future__ import annotations

import numpy as np

from sluice.compressor.scoring import Moment
from sluice.compressor.scoring.features import FEATURES, FeatureReader
from sluice.compressor.scoring.shapes import SHAPES, shapes
from tests.compressor.conversations import TASK, USER, call, evidence_of, file_lines, read_file


def column(name: str) -> int:
    return FEATURES.index(name)


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
