"""Questions with known answers, read from JSON lines. Knows no search engine."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """Where an answer stands; without lines the whole file counts."""

    path: str
    start: int | None = None
    end: int | None = None

    def overlaps(self, path: str, start: int, end: int) -> bool:
        """Whether a result shows any of it."""
        if path != self.path:
            return False
        return self.start is None or self.end is None or (start <= self.end and end >= self.start)


@dataclass(frozen=True, slots=True)
class Query:
    """A question put to one checkout."""

    id: str
    repo: str
    checkout: str
    """Directory below the directory of checkouts."""
    root: str
    """Part of the checkout that is searched; empty for all. Targets are relative to it."""
    kind: Literal["topic", "change"]
    text: str
    targets: tuple[Target, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The targets' files, each once."""
        return tuple(dict.fromkeys(target.path for target in self.targets))


def read_queries(path: Path) -> list[Query]:
    """Read a file of questions.

    Each line has `id`, `repo`, `kind` (`topic` or `change`), `query`, `relevant` (`path`, for lines also `start` and
    `end`), and optionally `dir` (the checkout, by default `repo`) and `root`.

    Raises:
        ValueError: a line is not of this form; names the line.
    """
    queries: list[Query] = []
    # Not splitlines(): a raw U+2028 in a question ends no line of JSON.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            queries.append(_query(json.loads(line)))
        except KeyError as error:
            raise ValueError(f"{path}:{number} is no question: it has no field {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number} is no question: {error}") from error
    return queries


def _query(row: dict[str, Any]) -> Query:
    if row["kind"] not in ("topic", "change"):
        raise ValueError(f"kind {row['kind']!r} is neither 'topic' nor 'change'")
    if not row["relevant"]:
        raise ValueError("'relevant' names nothing")
    root = row.get("root") or ""
    return Query(
        row["id"],
        row["repo"],
        row.get("dir") or row["repo"],
        root,
        row["kind"],
        row["query"],
        tuple(Target(_below(root, item["path"]), item.get("start"), item.get("end")) for item in row["relevant"]),
    )


def _below(root: str, path: str) -> str:
    """The path as seen from `root`; one that is not below it begins with `..`, and cannot be found."""
    return posixpath.relpath(path, root) if root else path
