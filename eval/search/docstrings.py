"""The docstring test: a function's docstring asks, with the docstring hidden from the index; its lines answer.

Needs nothing but Python files (the installed packages will do), and nobody has tuned anything to them.
"""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from sluice.compressor.syntax import language_of
from sluice.eval.search.data import Target
from sluice.eval.search.metrics import is_hit, line_recall, ndcg
from sluice.search.index.rules import is_test, skip_by_content
from sluice.search.index.scanner import Scanner, read_inside
from sluice.search.index.segment import build_segment
from sluice.search.index.view import single_layer_view
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import Rankers

MIN_WORDS = 6
MAX_QUERY_CHARS = 300


@dataclass(frozen=True, slots=True)
class _Documented:
    path: str
    start: int
    end: int
    hidden: range
    text: str


def docstring_test(root: Path, rankers: Rankers, num_queries: int, max_files: int, seed: int = 0) -> dict[str, float]:
    """hit@1, NDCG@10, and the share of questions whose function, and whose lines, are in a 1,000-token answer.

    Args:
        root: a tree with Python files.
        rankers: what ranks.
        num_queries: questions, drawn at random.
        max_files: files that are indexed, drawn at random.
        seed: of the draws.
    """
    root = root.resolve()
    draw = random.Random(seed)  # noqa: S311 -- a seeded draw, no secret
    paths = sorted(path for path in Scanner(root).scan() if path.endswith(".py") and not is_test(path))
    draw.shuffle(paths)
    contents: dict[str, bytes] = {}
    documented: list[_Documented] = []
    for path in sorted(paths[:max_files]):
        data = read_inside(root, path)
        if skip_by_content(data) is None:
            contents[path] = data
            documented.extend(_documented(path, data))
    draw.shuffle(documented)
    chosen = documented[:num_queries]
    hidden: dict[str, set[int]] = {}
    for item in chosen:
        hidden.setdefault(item.path, set()).update(item.hidden)
    files = [
        (path, build_segment(data, language_of(path), frozenset(hidden.get(path, ()))))
        for path, data in contents.items()
    ]
    view = single_layer_view(files)
    blanked = {path: without_lines(data, hidden.get(path, set())) for path, data in contents.items()}
    rows: list[tuple[float, float, float, float]] = []
    for item in chosen:
        results = answer(view, item.text, rankers, blanked.__getitem__, budget_tokens=1000)
        target = [Target(item.path, item.start, item.end)]
        found = any(target[0].overlaps(r.path, r.start, r.end) for r in results)
        rows.append((is_hit(results, target), ndcg(results, target), float(found), line_recall(results, target)))
    names = ("hit_1", "ndcg_10", "recall_1000", "line_recall_1000")
    means = {name: round(fmean(row[at] for row in rows), 4) for at, name in enumerate(names)} if rows else {}
    return {"num_files": len(contents), "num_queries": len(rows), **means}


def _documented(path: str, data: bytes) -> list[_Documented]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError):
        return []
    found: list[_Documented] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or len(node.body) < 2:
            continue
        first = node.body[0]
        text = ast.get_docstring(node)
        if text is None or first.end_lineno is None or node.end_lineno is None:
            continue
        text = " ".join(text.split("\n\n")[0].split())[:MAX_QUERY_CHARS]
        if len(re.findall(r"[A-Za-z]{2,}", text)) >= MIN_WORDS:
            hidden = range(first.lineno, first.end_lineno + 1)
            found.append(_Documented(path, node.lineno, node.end_lineno, hidden, text))
    return found


def without_lines(data: bytes, lines: Collection[int]) -> bytes:
    """The text with these lines (from 1) emptied."""
    return b"\n".join(b"" if at in lines else line for at, line in enumerate(data.split(b"\n"), 1))
