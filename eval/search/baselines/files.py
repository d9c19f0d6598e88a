"""The files that baselines look at: the same that our index takes, read whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sluice.eval.search.engines import Found
from sluice.search.index.rules import skip_by_content
from sluice.search.index.scanner import Scanner, read_inside
from sluice.search.tokens import result_tokens


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file's path below the root, and its lines."""

    path: str
    lines: tuple[str, ...]


def source_files(root: Path) -> list[SourceFile]:
    """All files worth an index, by path."""
    root = root.resolve()
    files: list[SourceFile] = []
    for path in sorted(Scanner(root).scan()):
        data = read_inside(root, path)
        if skip_by_content(data) is None:
            files.append(SourceFile(path, tuple(data.decode("utf-8", "replace").split("\n"))))
    return files


def within_budget(ranges: list[Found], budget_tokens: int) -> list[Found]:
    """The first ranges that fit; one that does not ends the list."""
    used = 0
    kept: list[Found] = []
    for found in ranges:
        used += result_tokens(found.path, found.start, found.end, found.num_chars)
        if used > budget_tokens:
            break
        kept.append(found)
    return kept


def as_found(file: SourceFile, start: int, end: int) -> Found:
    """A range of a file's lines, clipped to it."""
    start, end = max(1, start), min(end, len(file.lines))
    return Found(file.path, start, end, sum(len(line) + 1 for line in file.lines[start - 1 : end]) - 1)
