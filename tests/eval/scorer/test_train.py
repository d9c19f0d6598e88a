from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sluice.compressor.scoring.forest import read_forest
from sluice.eval.data import read_traces
from sluice.eval.scorer.crossval import MIN_NEEDED, held_out, leave_one_out
from sluice.eval.scorer.data import Examples, Sampling, Source, concatenate, examples
from sluice.eval.scorer.trees import Growth, averaged, grow, targets, to_forest
from sluice.eval.traces import AGENTS, trace_file

pytest.importorskip("lightgbm")
SMALL = Growth(num_trees=5, num_leaves=4, min_leaf_weight=3)


@pytest.fixture(scope="module")
def tiny() -> Examples:
    sampling = Sampling(arrival_share=1.0, epoch_share=1.0)
    return concatenate([examples(trace, sampling, 0) for agent in AGENTS for trace in read_traces(trace_file(agent))])


def test_the_forest_computes_what_the_boosters_do(tiny: Examples) -> None:
    boosters = grow(tiny, SMALL)
    margins = to_forest(boosters).margins(tiny.features)
    for column, head in enumerate(("line", "word")):
        expected = boosters[head].predict(tiny.features, raw_score=True)
        assert np.allclose(margins[:, column], expected, atol=1e-5)


def test_training_learns_and_is_repeatable(tiny: Examples) -> None:
    one, other = (to_forest(grow(tiny, SMALL)) for _ in range(2))
    assert np.array_equal(one.leaf, other.leaf)
    rows, label, _ = targets(tiny, "word")
    margins = one.margins(tiny.features)[rows, 1]
    assert margins[label[rows] > 0].mean() > margins[label[rows] == 0].mean()


def test_facts_are_counted_not_lines(tiny: Examples) -> None:
    num_words = np.where(tiny.num_words > 0, 3, 0).astype(np.float32)
    _, label, weight = targets(replace(tiny, num_words=num_words), "word")
    assert set(label.tolist()) == {0.0, 1.0}
    assert np.array_equal(weight, tiny.weights * np.where(label > 0, 3, 1))


def test_trees_too_large_for_a_mask_are_refused(tiny: Examples) -> None:
    at_random = np.random.default_rng(0).integers(0, 2, len(tiny.weights)).astype(np.float32)
    noisy = replace(tiny, num_words=at_random, num_lines=at_random)
    boosters = grow(noisy, Growth(num_trees=2, num_leaves=60, min_leaf_weight=1))
    with pytest.raises(ValueError, match="32"):
        to_forest(boosters)


def test_a_mean_of_forests_has_the_mean_of_their_margins(tiny: Examples) -> None:
    one, other = (to_forest(grow(tiny, growth)) for growth in (SMALL, replace(SMALL, num_trees=3, num_leaves=7)))
    mean = averaged(one, other).margins(tiny.features)
    assert np.allclose(mean, (one.margins(tiny.features) + other.margins(tiny.features)) / 2, atol=1e-5)
    with pytest.raises(ValueError, match="no mean"):
        averaged(one, replace(other, features=other.features[::-1]))


def test_figures_of_held_out_groups(tiny: Examples) -> None:
    num_needed = min(tiny.num_words.sum(), tiny.num_lines.sum())
    enough = concatenate([tiny] * (MIN_NEEDED // int(num_needed) + 1))
    sources = [Source("a", "x", enough), Source("b", "x", enough)]
    figures = list(leave_one_out(sources, SMALL, by="agent"))
    assert {one.group for one in figures} == {"a", "b"}
    assert list(leave_one_out(sources, SMALL, by="repository")) == []
    found = list(held_out("all", tiny, to_forest(grow(tiny, SMALL))))
    assert found
    for one in found:
        assert list(one.lost) == sorted(one.lost)
        assert 0 <= one.lost[0] <= one.lost[-1] <= 1


def test_the_command_writes_a_model(tmp_path: Path) -> None:
    from sluice.eval.scorer.train import train

    out = tmp_path / "model.npz"
    traces = [str(trace_file(agent)) for agent in AGENTS]
    done = CliRunner().invoke(train, [*traces, "--out", str(out), "--trees", "3", "--look-at", traces[0]])
    assert done.exit_code == 0, done.output
    assert "held-out traces" in done.output
    forest, note = read_forest(out)
    assert note["num_conversations"] == len(AGENTS)
    assert set(forest.head_of_tree) == {0, 1}


def test_a_folder_that_is_not_there_is_told_before_the_training(tmp_path: Path) -> None:
    from sluice.eval.scorer.train import train

    done = CliRunner().invoke(train, [str(trace_file(AGENTS[0])), "--out", str(tmp_path / "no" / "trees.npz")])
    assert done.exit_code == 2
    assert "there is no folder" in done.output
