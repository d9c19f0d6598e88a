from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sluice.compressor.scoring.features import FEATURES
from sluice.compressor.scoring.neural.combine import COLUMNS
from sluice.eval.data import read_traces
from sluice.eval.scorer.data import Sampling, Source, examples
from sluice.eval.scorer.learning_curve import SHARES, as_table, curve
from sluice.eval.scorer.trees import Growth
from sluice.eval.traces import AGENTS, trace_file

pytest.importorskip("lightgbm")
GROWTH = Growth(num_trees=4, num_leaves=4, min_leaf_weight=3)


@pytest.fixture(scope="module")
def named() -> list[tuple[str, Source]]:
    """The shipped conversations, twice each, with log odds that tell what is needed."""
    found = []
    for agent in AGENTS:
        for trace in read_traces(trace_file(agent)):
            some = examples(trace, Sampling(arrival_share=1.0, epoch_share=1.0), 0)
            needed = np.where((some.num_lines > 0) | (some.num_words > 0), 5.0, -5.0).astype(np.float32)
            said = np.repeat(needed[:, None], len(COLUMNS) - len(FEATURES), axis=1)
            told = replace(some, features=np.concatenate([some.features, said], axis=1))
            found += [(f"{trace.id}-{copy}", Source(agent, "r", told)) for copy in range(2)]
    return found


def test_every_share_of_every_fold_is_judged_on_what_it_has_not_seen(named: list[tuple[str, Source]]) -> None:
    fold_of = {name: int(name[-1]) for name, _ in named}
    points = [
        point for draw in range(2) for point in curve(named, fold_of, replace(GROWTH, seed=draw), has_logits=True)
    ]
    assert len(points) == 2 * 2 * len(SHARES) * 2
    largest = [point for point in points if point.share == 1]
    assert {point.num_conversations for point in largest} == {len(AGENTS)}
    for point in points:
        assert point.num_conversations == max(1, round(point.share * len(AGENTS)))
    by_model = {
        model: np.mean([point.losses for point in largest if point.model == model]) for model in ("features", "both")
    }
    assert by_model["both"] < by_model["features"], "what the log odds tell is learned"

    head, _, *rows = as_table(points)
    assert "log loss, words" in head
    assert [row.split("|")[2].strip() for row in rows] == ["features", "both"] * len(SHARES)


def test_without_log_odds_there_are_features_alone(named: list[tuple[str, Source]]) -> None:
    fold_of = {name: int(name[-1]) for name, _ in named}
    assert {point.model for point in curve(named, fold_of, GROWTH, has_logits=False)} == {"features"}
