"""Puts questions to engines and adds up the figures of merit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from sluice.eval.search.data import Query
from sluice.eval.search.engines import Engine, Found
from sluice.eval.search.metrics import file_recall, file_targets, is_hit, line_recall, ndcg, percentile
from sluice.search.tokens import result_tokens

BUDGETS = (500, 1000, 2000)
DEFAULT_BUDGET = 1000
"""What a caller gets who names no budget; file metrics, hit@1 and latency are of this call."""


@dataclass
class Figures:
    """One engine's figures for one kind of question, a value per question."""

    ndcg: list[float] = field(default_factory=list)
    file_recall: list[float] = field(default_factory=list)
    hit: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    query_ms: list[float] = field(default_factory=list)
    line_recall: dict[int, list[float]] = field(default_factory=lambda: {budget: [] for budget in BUDGETS})

    def row(self) -> dict[str, float]:
        """Means, and percentiles of latency."""
        means = {
            "num_queries": float(len(self.ndcg)),
            "file_ndcg_10": fmean(self.ndcg),
            "file_recall_10": fmean(self.file_recall),
            "hit_1": fmean(self.hit),
            "tokens": fmean(self.tokens),
            "query_p50_ms": percentile(self.query_ms, 0.5),
            "query_p95_ms": percentile(self.query_ms, 0.95),
        }
        lines = {f"line_recall_{budget}": fmean(values) for budget, values in self.line_recall.items() if values}
        return {name: round(value, 4) for name, value in {**means, **lines}.items()}


def measure(
    queries: Sequence[Query], make_engine: Callable[[Query], Engine], budgets: Sequence[int] = BUDGETS
) -> Mapping[str, Figures]:
    """Figures by kind of question (`topic`, `change`).

    Args:
        queries: in any order; engines are made once per checkout and part of it.
        make_engine: makes the engine for a question's tree.
        budgets: of separate calls, for line recall.
    """
    engines: dict[tuple[str, str], Engine] = {}
    figures: dict[str, Figures] = {}
    for query in queries:
        tree = (query.checkout, query.root)
        if tree not in engines:
            engines[tree] = make_engine(query)
            engines[tree].search(query.text, DEFAULT_BUDGET)  # warm: the first call reads files that later ones share
        _add(figures.setdefault(query.kind, Figures()), query, engines[tree], budgets)
    return figures


def part_of(query: Query, repos: Path) -> Path:
    """The directory that a question searches."""
    return repos / query.checkout / query.root


def _add(figures: Figures, query: Query, engine: Engine, budgets: Sequence[int]) -> None:
    started = time.perf_counter()
    results = engine.search(query.text, DEFAULT_BUDGET)
    figures.query_ms.append((time.perf_counter() - started) * 1e3)
    figures.ndcg.append(ndcg(results, file_targets(query)))
    figures.file_recall.append(file_recall(results, query))
    figures.hit.append(float(is_hit(results, query.targets)))
    figures.tokens.append(float(_tokens(results)))
    if query.targets[0].start is not None:
        for budget in budgets:
            shown = results if budget == DEFAULT_BUDGET else engine.search(query.text, budget)
            figures.line_recall[budget].append(line_recall(shown, query.targets))


def _tokens(results: Sequence[Found]) -> int:
    return sum(result_tokens(r.path, r.start, r.end, r.num_chars) for r in results)
