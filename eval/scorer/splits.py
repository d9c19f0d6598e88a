"""Which conversations a model may see: runs that leave out an agent, or a fold of repositories. Plain functions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sluice.eval.scorer.corpus import Corpus, Group

NUM_FOLDS = 4
MAIN = "main"
"""The run that leaves out nothing."""
_INSTANCE = re.compile(r"/([\w.-]+__[\w.-]+)-\d+$")
"""Ids of SWE-bench's instances name their repository."""


def repository_of(group: Group) -> str:
    """The repository that a conversation is about, as far as its id or source tells."""
    match = _INSTANCE.search(group.id)
    return match[1] if match else group.repository


def folds(groups: Sequence[Group], num_lines: npt.NDArray[np.int64]) -> dict[str, int]:
    """A fold for each repository: about as many lines in each, largest repositories first."""
    sizes: dict[str, int] = {}
    for group, size in zip(groups, num_lines.tolist(), strict=True):
        repository = repository_of(group)
        sizes[repository] = sizes.get(repository, 0) + size
    totals, found = [0] * NUM_FOLDS, {}
    for repository in sorted(sizes, key=lambda one: (-sizes[one], one)):
        fold = totals.index(min(totals))
        found[repository] = fold
        totals[fold] += sizes[repository]
    return found


def left_out(run: str, corpus: Corpus) -> npt.NDArray[np.bool_]:
    """By group: whether a run must not see it.

    Args:
        run: `main`, `fold-N`, or `agent-NAME`.
        corpus: all that could be trained on.

    Raises:
        ValueError: there is no such run.
    """
    kind, _, name = run.partition("-")
    if run == MAIN:
        return np.zeros(len(corpus.groups), dtype=bool)
    if kind == "agent" and any(group.agent == name for group in corpus.groups):
        return np.array([group.agent == name for group in corpus.groups])
    if kind == "fold" and name.isdigit() and int(name) < NUM_FOLDS:
        lines = np.bincount(
            corpus.windows[:, 0], weights=np.diff(corpus.line_starts), minlength=len(corpus.groups)
        ).astype(np.int64)
        fold = folds(corpus.groups, lines)
        return np.array([fold[repository_of(group)] == int(name) for group in corpus.groups])
    raise ValueError(f"no run is named {run!r}: main, fold-0 to fold-{NUM_FOLDS - 1}, agent-NAME")
