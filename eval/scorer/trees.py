"""Grows the scorer's trees with LightGBM and turns them into the flat arrays that are shipped. Knows no traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.features import FEATURES
from sluice.compressor.scoring.forest import MAX_LEAVES, Forest
from sluice.eval.scorer.data import Examples


@dataclass(frozen=True, slots=True)
class Growth:
    """How the trees are grown."""

    num_trees: int = 120
    """Of each head."""
    num_leaves: int = 16
    learning_rate: float = 0.1
    min_leaf_weight: int = 150
    max_examples: int = 400_000
    """Of each head: those with nothing needed are thinned out further, and weigh more."""
    num_threads: int = 1
    seed: int = 0


def grow(examples: Examples, growth: Growth, columns: Sequence[str] = FEATURES) -> dict[str, Any]:
    """One booster for each head, over the named columns."""
    import lightgbm  # of the extra `train`: nothing else needs it

    boosters: dict[str, Any] = {}
    for head in HEADS:
        rows, label, weight = targets(examples, head)
        rows, weight = _thinned(rows, label, weight, growth)
        data = lightgbm.Dataset(
            examples.features[rows], label[rows], weight=weight, feature_name=list(columns), free_raw_data=True
        )
        options = {
            "objective": "binary",
            "learning_rate": growth.learning_rate,
            "num_leaves": growth.num_leaves,
            "min_data_in_leaf": growth.min_leaf_weight,
            "feature_fraction": 0.6,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": 20.0,
            "max_bin": 127,
            "use_missing": False,
            "num_threads": growth.num_threads,
            **({"force_row_wise": True} if growth.num_threads > 1 else {}),
            "deterministic": True,
            "seed": growth.seed,
            "verbose": -1,
        }
        boosters[head] = lightgbm.train(options, data, growth.num_trees)
    return boosters


def targets(
    examples: Examples, head: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Which examples a head learns from; label and weight of all examples. Facts are counted, not lines."""
    if head == "line":
        label = (examples.num_lines > 0).astype(np.float32)
        return np.flatnonzero(examples.is_line_fact), label, examples.weights
    label = (examples.num_words > 0).astype(np.float32)
    return np.flatnonzero(examples.has_word_fact), label, examples.weights * np.maximum(examples.num_words, 1)


def _thinned(
    rows: npt.NDArray[np.int64], label: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], growth: Growth
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    num_needed = int(label[rows].sum())
    share = min(1.0, max(growth.max_examples - num_needed, 1) / max(len(rows) - num_needed, 1))
    draws = np.random.default_rng(growth.seed).random(len(rows))
    rows = rows[(label[rows] > 0) | (draws < share)]
    return rows, np.where(label[rows] > 0, weight[rows], weight[rows] / share)


def to_forest(boosters: Mapping[str, Any], columns: Sequence[str] = FEATURES) -> Forest:
    """The boosters' trees as one forest, in the order of the heads."""
    trees: list[tuple[int, dict[str, Any]]] = []
    for number, head in enumerate(HEADS):
        trees += [(number, tree["tree_structure"]) for tree in boosters[head].dump_model()["tree_info"]]
    num_leaves = max(_num_leaves(tree) for _, tree in trees)
    if num_leaves > MAX_LEAVES:
        raise ValueError(f"a tree has {num_leaves} leaves; a mask holds {MAX_LEAVES}")
    shape = (max(num_leaves - 1, 1), len(trees))
    feature = np.zeros(shape, dtype=np.int64)
    threshold = np.full(shape, np.inf, dtype=np.float32)
    clears = np.full(shape, 0xFFFFFFFF, dtype=np.uint32)
    leaf = np.zeros((len(trees), num_leaves), dtype=np.float32)
    for column, (_, tree) in enumerate(trees):
        nodes, values = _flat(tree, 0)
        leaf[column, : len(values)] = values
        for row, (number, at, mask) in enumerate(nodes):
            feature[row, column], threshold[row, column], clears[row, column] = number, at, mask
    heads = np.array([head for head, _ in trees], dtype=np.int64)
    return Forest(HEADS, tuple(columns), heads, feature, threshold, clears, leaf)


def averaged(one: Forest, other: Forest) -> Forest:
    """A forest whose margins are the means of two's; the columns of the first begin those of the other.

    Raises:
        ValueError: they have other heads or columns.
    """
    if one.heads != other.heads or other.features[: len(one.features)] != one.features:
        raise ValueError("forests of other heads or columns have no mean")
    num_nodes, num_leaves = (max(len(a), len(b)) for a, b in ((one.feature, other.feature), (one.leaf.T, other.leaf.T)))

    def nodes(name: str, fill: float) -> npt.NDArray[Any]:
        parts = [getattr(forest, name) for forest in (one, other)]
        rows = [np.pad(part, ((0, num_nodes - len(part)), (0, 0)), constant_values=fill) for part in parts]
        return np.concatenate(rows, axis=1)

    leaf = np.concatenate([np.pad(f.leaf, ((0, 0), (0, num_leaves - f.leaf.shape[1]))) for f in (one, other)])
    return Forest(
        one.heads,
        other.features,
        np.concatenate([one.head_of_tree, other.head_of_tree]),
        nodes("feature", 0),
        nodes("threshold", np.inf),
        nodes("clears", 0xFFFFFFFF),
        (leaf / 2).astype(np.float32),
    )


def _num_leaves(tree: Mapping[str, Any]) -> int:
    if "split_feature" not in tree:
        return 1
    return _num_leaves(tree["left_child"]) + _num_leaves(tree["right_child"])


def _flat(tree: Mapping[str, Any], first_leaf: int) -> tuple[list[tuple[int, np.float32, int]], list[float]]:
    """A subtree's nodes (feature, threshold, leaves that stay on the way right) and its leaves from left to right."""
    if "split_feature" not in tree:
        return [], [tree["leaf_value"]]
    left_nodes, left = _flat(tree["left_child"], first_leaf)
    right_nodes, right = _flat(tree["right_child"], first_leaf + len(left))
    at = np.float32(tree["threshold"])
    if float(at) > tree["threshold"]:
        # Features are 32 bits wide: the largest such number that is not above the threshold parts them the same way.
        at = np.nextafter(at, np.float32(-np.inf))
    stays = 0xFFFFFFFF & ~(((1 << len(left)) - 1) << first_leaf)
    return [(int(tree["split_feature"]), at, stays), *left_nodes, *right_nodes], [*left, *right]
