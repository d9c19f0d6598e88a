"""Exact-string and regular-expression search over the indexed files.

Two engines, the first that is there: ripgrep as the `python-ripgrep` wheel has it, and our own. Ours narrows the files
by the index and looks for the literal text; it takes regular expressions only as far as they are alternatives of
literals, because Python's matcher can be made to run for ever.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sluice.search.errors import QueryError
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.tokenizer import raw_tokens, terms_of
from sluice.search.index.view import View

MAX_PATTERN_CHARS = 1_000
MAX_TEXT_CHARS = 300
"""A hit's line is cut to this."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that matches."""

    path: str
    line: int
    text: str


Engine = Callable[[RepoIndex, View, str, bool, float], Iterator[Hit]]
"""(index, view, pattern, is_regex, seconds) → hits in any order; may give hits in files that are not indexed."""


def find_exact(
    index: RepoIndex,
    view: View,
    pattern: str,
    *,
    is_regex: bool = False,
    glob: str | None = None,
    max_hits: int = 200,
    timeout_s: float = 5.0,
    engine: Engine | None = None,
) -> list[Hit]:
    """Lines of indexed files that hold the pattern, by path and line.

    Raises:
        QueryError: the pattern is empty, too long, spans lines or is no regular expression.
    """
    if not pattern.strip() or len(pattern) > MAX_PATTERN_CHARS or "\n" in pattern or "\0" in pattern:
        raise QueryError(f"pattern {pattern[:60]!r} is empty, spans lines, or is longer than {MAX_PATTERN_CHARS}")
    hits: set[tuple[str, int, str]] = set()
    deadline = time.monotonic() + timeout_s
    for hit in (engine or best_engine())(index, view, pattern, is_regex, timeout_s):
        if hit.path in view.by_path and (glob is None or matches_glob(hit.path, glob)):
            hits.add((hit.path, hit.line, hit.text))
        if len(hits) >= max_hits or time.monotonic() > deadline:
            break
    return [Hit(*fields) for fields in sorted(hits)]


def matches_glob(path: str, glob: str) -> bool:
    """Whether a path fits a glob: on the whole path, or on the name alone if the glob has no `/`."""
    subject = path if "/" in glob else path.rsplit("/", 1)[-1]
    return fnmatch.fnmatchcase(subject, glob.replace("**/", "*").removeprefix("./"))


def best_engine() -> Engine:
    """The fastest engine that is installed."""
    try:
        import python_ripgrep  # noqa: F401 -- only asked whether it is there
    except ImportError:
        return own_engine
    return ripgrep


def ripgrep(index: RepoIndex, view: View, pattern: str, is_regex: bool, seconds: float) -> Iterator[Hit]:
    """Ripgrep in this process; its expressions take time in proportion to the text. See `Engine`."""
    import python_ripgrep

    expression = pattern if is_regex else re.sub(r"([\\.+*?()|\[\]{}^$#&\-~])", r"\\\1", pattern)
    try:
        found = python_ripgrep.search([expression], [str(index.root)], line_number=True, heading=False, max_count=50)
    except (ValueError, RuntimeError, OSError) as error:
        raise QueryError(f"ripgrep refused the pattern {pattern[:60]!r}: {error}") from error
    prefix = f"{index.root}/"
    row = re.compile(re.escape(prefix) + r"(.+?):(\d+):(.*)")
    for block in found:
        for line in block.split("\n"):
            if (match := row.match(line)) is not None:
                yield Hit(match[1], int(match[2]), match[3].rstrip("\r")[:MAX_TEXT_CHARS])


def own_engine(index: RepoIndex, view: View, pattern: str, is_regex: bool, seconds: float) -> Iterator[Hit]:
    """Our own. See `Engine`."""
    literals = _alternatives(pattern) if is_regex else [pattern]
    deadline = time.monotonic() + seconds
    for file in sorted({file for literal in literals for file in _files_with(view, literal)}):
        if time.monotonic() > deadline:
            return
        path = view.files[file].path
        try:
            lines = index.read(path).decode("utf-8", "replace").split("\n")
        except OSError:
            continue
        for number, line in enumerate(lines, 1):
            if any(literal in line for literal in literals):
                yield Hit(path, number, line.rstrip("\r")[:MAX_TEXT_CHARS])


def _alternatives(pattern: str) -> list[str]:
    r"""Literals of a pattern like `foo|bar\(`.

    Raises:
        QueryError: the pattern is more than that.
    """
    bare = re.sub(r"\\[bB]", "", pattern)
    if re.search(r"(?<!\\)[.*+?()\[\]{}^$]|\\[A-Za-z0-9]", bare) is not None:
        raise QueryError(
            f"without ripgrep only literals and their alternatives can be searched for, not {pattern[:60]!r}"
        )
    return [re.sub(r"\\(.)", r"\1", part) for part in bare.split("|") if part]


def _files_with(view: View, literal: str) -> Sequence[int]:
    """Files that may hold the literal: by its inner tokens, which the index knows whole; all if it has none."""
    tokens = raw_tokens(literal)
    inner = [
        token
        for at, token in enumerate(tokens)
        if (at > 0 or not literal.startswith(token)) and (at < len(tokens) - 1 or not literal.endswith(token))
    ]
    found: set[int] | None = None
    for token in inner:
        for term in terms_of(token)[:1]:
            chunks, _ = view.body(term)
            files = set(view.file_of_chunk[chunks].tolist())
            found = files if found is None else found & files
    if found is None:
        return [number for number, stands in enumerate(view.alive_files.tolist()) if stands]
    return sorted(found)
