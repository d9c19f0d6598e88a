"""Figures of merit for a ranked list of line ranges against known answers. Plain functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from sluice.eval.search.data import Query, Target


class Range(Protocol):
    """What a search engine returned: lines of a file."""

    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def start(self) -> int: ...  # noqa: D102
    @property
    def end(self) -> int: ...  # noqa: D102


def ndcg(results: Sequence[Range], targets: Sequence[Target], k: int = 10) -> float:
    """NDCG@k with one gain per target, at the first result that overlaps it (Järvelin & Kekäläinen 2002)."""
    gained = 0.0
    for target in targets:
        for rank, result in enumerate(results[:k]):
            if target.overlaps(result.path, result.start, result.end):
                gained += 1 / math.log2(rank + 2)
                break
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(targets))))
    return gained / ideal if ideal else 0.0


def file_targets(query: Query) -> list[Target]:
    """The query's targets as whole files."""
    return [Target(path) for path in query.paths]


def file_recall(results: Sequence[Range], query: Query, k: int = 10) -> float:
    """Share of the targets' files among the first k results."""
    found = {result.path for result in results[:k]}
    return sum(path in found for path in query.paths) / len(query.paths)


def line_recall(results: Iterable[Range], targets: Sequence[Target]) -> float:
    """Share of the targets' lines that the results show."""
    shown: dict[str, set[int]] = {}
    for result in results:
        shown.setdefault(result.path, set()).update(range(result.start, result.end + 1))
    wanted = {
        (target.path, line)
        for target in targets
        if target.start is not None and target.end is not None
        for line in range(target.start, target.end + 1)
    }
    return sum(line in shown.get(path, ()) for path, line in wanted) / len(wanted) if wanted else 0.0


def is_hit(results: Sequence[Range], targets: Sequence[Target]) -> bool:
    """Whether the first result overlaps a target."""
    return bool(results) and any(t.overlaps(results[0].path, results[0].start, results[0].end) for t in targets)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed (nearest rank); 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
