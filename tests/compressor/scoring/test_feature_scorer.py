from __future__ import annotations

import subprocess
import sys

from sluice.compressor.scoring import Moment, load_default
from tests.compressor.conversations import READ, TASK, USER, call, evidence_of, file_lines, read_file, result


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
