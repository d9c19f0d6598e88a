"""A gradient-boosted ranker as arrays: scores rows of features without the library that trained it.

Every tree is a row of nodes; a leaf points to itself, so that all trees are walked together for as many steps as the
deepest has levels. Knows no features by name beyond refusing a ranker that was trained on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

_Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Trees:
    """Boosted regression trees; arrays are [num_trees, max_nodes]."""

    columns: tuple[str, ...]
    """Names of the features, in the order of the rows' columns."""
    feature: npt.NDArray[np.int16]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int16]
    right: npt.NDArray[np.int16]
    value: npt.NDArray[np.float32]
    depth: int

    def score(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Scores, float64[n], of rows float32[n, len(columns)]; higher is better."""
        feature, threshold, child, value, roots = self._flat
        num_rows, num_columns = rows.shape
        values = np.ascontiguousarray(rows, np.float32).ravel()
        first = (np.arange(num_rows) * num_columns)[:, None]
        node = np.broadcast_to(roots, (num_rows, len(roots)))
        for _ in range(self.depth):
            goes_right = values.take(first + feature.take(node)) > threshold.take(node)
            node = child.take(2 * node + goes_right)
        scores: npt.NDArray[np.float64] = value.take(node).sum(axis=1, dtype=np.float64)
        return scores

    @cached_property
    def _flat(self) -> tuple[_Index, npt.NDArray[np.float32], _Index, npt.NDArray[np.float32], _Index]:
        """All trees' nodes in one row: feature, threshold, both children, value; and where the roots are.

        Positions are of the type that `take` takes: any other it copies first.
        """
        num_trees, width = self.feature.shape
        roots = np.arange(num_trees, dtype=np.intp) * width
        child = np.stack([self.left + roots[:, None], self.right + roots[:, None]], axis=2)
        return (
            self.feature.ravel().astype(np.intp),
            self.threshold.ravel(),
            child.ravel().astype(np.intp),
            self.value.ravel(),
            roots,
        )

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
        """As named arrays, for a file."""
        return {
            f"{prefix}_columns": np.array(self.columns),
            f"{prefix}_feature": self.feature,
            f"{prefix}_threshold": self.threshold,
            f"{prefix}_left": self.left,
            f"{prefix}_right": self.right,
            f"{prefix}_value": self.value,
            f"{prefix}_depth": np.array(self.depth),
        }


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]], prefix: str, columns: Sequence[str]) -> Trees:
    """The reverse of `Trees.arrays`.

    Raises:
        ValueError: the trees were trained on other features than `columns`.
    """
    trained_on = tuple(str(name) for name in arrays[f"{prefix}_columns"])
    if trained_on != tuple(columns):
        raise ValueError(f"the {prefix} ranker was trained on {trained_on}, not on {tuple(columns)}: train it again")
    return Trees(
        trained_on,
        arrays[f"{prefix}_feature"],
        arrays[f"{prefix}_threshold"],
        arrays[f"{prefix}_left"],
        arrays[f"{prefix}_right"],
        arrays[f"{prefix}_value"],
        int(arrays[f"{prefix}_depth"]),
    )


def from_lightgbm(dump: Mapping[str, Any], columns: Sequence[str]) -> Trees:
    """Trees from what `lightgbm.Booster.dump_model()` returns; thresholds are rounded up to float32.

    Raises:
        ValueError: a split is not of the form `feature <= threshold`.
    """
    trees: list[list[tuple[int, float, int, int, float]]] = []
    depth = 1
    for info in dump["tree_info"]:
        nodes: list[tuple[int, float, int, int, float]] = []
        depth = max(depth, _flatten(info["tree_structure"], nodes))
        trees.append(nodes)
    width = max(len(nodes) for nodes in trees)
    shape = (len(trees), width)
    feature, left, right = (np.zeros(shape, np.int16) for _ in range(3))
    threshold, value = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    for row, nodes in enumerate(trees):
        for at, (split, limit, low, high, leaf) in enumerate(nodes):
            feature[row, at], left[row, at], right[row, at], value[row, at] = split, low, high, leaf
            threshold[row, at] = limit
    return Trees(tuple(columns), feature, threshold, left, right, value, depth)


def _flatten(node: Mapping[str, Any], nodes: list[tuple[int, float, int, int, float]]) -> int:
    """Append the node and all below it; returns the number of levels of splits."""
    at = len(nodes)
    if "leaf_value" in node:
        nodes.append((0, float("inf"), at, at, float(node["leaf_value"])))
        return 0
    if node["decision_type"] != "<=":
        raise ValueError(f"split {node['decision_type']!r} is not '<='")
    nodes.append((0, 0.0, 0, 0, 0.0))
    left = len(nodes)
    below_left = _flatten(node["left_child"], nodes)
    right = len(nodes)
    below_right = _flatten(node["right_child"], nodes)
    limit = float(np.nextafter(np.float32(node["threshold"]), np.float32(np.inf)))
    nodes[at] = (int(node["split_feature"]), limit, left, right, 0.0)
    return 1 + max(below_left, below_right)
