"""Evaluates small boosted trees with numpy alone: all trees at once, node by node.

Each node that a line fails clears, in one bit mask per line and tree, the leaves that it can no longer reach; the
lowest bit that is left is its leaf. The idea is QuickScorer's (Lucchese et al., SIGIR 2015). Knows no feature.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.errors import ModelFileError

MAX_LEAVES = 32
"""Bits of a mask."""
_ROWS_AT_ONCE = 2_048
"""Keeps the masks of all trees within the processor's cache."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Boosted trees of one or several heads, in flat arrays. Nodes of all trees with the same number stand in a row."""

    heads: tuple[str, ...]
    features: tuple[str, ...]
    head_of_tree: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    """(nodes, trees): which column a node looks at."""
    threshold: npt.NDArray[np.float32]
    """(nodes, trees): up to this value, inclusive, a line goes left. +inf where a tree has fewer nodes."""
    clears: npt.NDArray[np.uint32]
    """(nodes, trees): the leaves that stay when a line goes right."""
    leaf: npt.NDArray[np.float32]
    """(trees, leaves): what each leaf adds."""

    def margins(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(lines, features) → (lines, heads): sums of the leaves, before any link function."""
        found = np.zeros((len(features), len(self.heads)), dtype=np.float32)
        for start in range(0, len(features), _ROWS_AT_ONCE):
            found[start : start + _ROWS_AT_ONCE] = self._margins(features[start : start + _ROWS_AT_ONCE])
        return found

    def _margins(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        by_feature = np.ascontiguousarray(features.T)
        num_trees = len(self.head_of_tree)
        leaves = np.full((num_trees, len(features)), 0xFFFFFFFF, dtype=np.uint32)
        every = np.uint32(0xFFFFFFFF)
        for feature, threshold, clears in zip(self.feature, self.threshold, self.clears, strict=True):
            goes_right = by_feature[feature] > threshold[:, None]
            leaves &= np.where(goes_right, clears[:, None], every)
        lowest = leaves & (~leaves + np.uint32(1))
        number = np.frexp(lowest.astype(np.float32))[1] - 1
        values = np.take_along_axis(self.leaf, number.astype(np.int64), axis=1)
        margins = np.zeros((len(self.heads), len(features)), dtype=np.float32)
        for head in range(len(self.heads)):
            margins[head] = values[self.head_of_tree == head].sum(axis=0)
        return margins.T


def read_forest(file: Path | Traversable) -> tuple[Forest, dict[str, Any]]:
    """Read a forest and what was noted with it.

    Raises:
        ModelFileError: it is not there or is no forest.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            note = json.loads(str(arrays["note"]))
            forest = Forest(
                tuple(note.pop("heads")),
                tuple(note.pop("features")),
                arrays["head_of_tree"].astype(np.int64),
                arrays["feature"].astype(np.int64),
                arrays["threshold"].astype(np.float32),
                arrays["clears"].astype(np.uint32),
                arrays["leaf"].astype(np.float32),
            )
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise ModelFileError(str(file), str(error)) from error
    return forest, note


def write_forest(path: Path, forest: Forest, note: dict[str, Any]) -> None:
    """Write a forest; the same forest gives the same bytes.

    Args:
        path: of the `.npz` file.
        forest: to write.
        note: JSON values that travel with it.
    """
    text = json.dumps({**note, "heads": forest.heads, "features": forest.features}, sort_keys=True)
    with path.open("wb") as stream:
        np.savez_compressed(
            stream,
            allow_pickle=False,
            note=np.array(text),
            head_of_tree=forest.head_of_tree.astype(np.uint8),
            feature=forest.feature.astype(np.uint8),
            threshold=forest.threshold,
            clears=forest.clears,
            leaf=forest.leaf,
        )
