"""Where a name is defined and where it is used: look-ups in the index, checked against the files' lines.

Definitions come from the definition tree; references are whole-word occurrences outside of the definition's own name,
found by the index and confirmed in the text, so that they are never out of date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sluice.compressor.syntax import Definition
from sluice.search.index.names import last_part
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.tokenizer import raw_tokens, terms_of
from sluice.search.index.view import View

MAX_LINE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition and its file."""

    path: str
    definition: Definition


@dataclass(frozen=True, slots=True)
class Reference:
    """A line that uses a name."""

    path: str
    line: int
    text: str


def find_definitions(view: View, name: str, max_results: int = 50) -> list[Symbol]:
    """Definitions that are called so; exact case first, then any case.

    Args:
        view: what is searched.
        name: perhaps qualified (`Class.method`, `a::b`): then what stands around must be called so too.
        max_results: at most so many.
    """
    *around, bare = [part for part in re.split(r"::|\.|#", name.strip()) if part] or [""]
    tokens = raw_tokens(bare)
    terms = terms_of(tokens[0]) if tokens else ()
    if not terms:
        return []
    exact: list[Symbol] = []
    loose: list[Symbol] = []
    seen: set[tuple[int, int]] = set()
    for chunk in view.title(terms[0]).tolist():
        file = int(view.file_of_chunk[chunk])
        entry = view.files[file]
        for index, definition in enumerate(entry.definitions):
            called = last_part(definition.name)
            if called.lower() != bare.lower() or (file, index) in seen:
                continue
            if around and not _stands_in(entry.definitions, index, around[-1]):
                continue
            seen.add((file, index))
            (exact if called == bare else loose).append(Symbol(entry.path, definition))
    ordered = [sorted(found, key=lambda s: (s.path, s.definition.start)) for found in (exact, loose)]
    return (ordered[0] + ordered[1])[:max_results]


def find_references(index: RepoIndex, view: View, name: str, max_results: int = 100) -> list[Reference]:
    """Lines that use the name as a whole word, apart from the lines that define it."""
    bare = last_part(name)
    tokens = raw_tokens(bare)
    if not tokens or not terms_of(tokens[0]):
        return []
    chunks, _ = view.body(terms_of(tokens[0])[0])
    word = re.compile(rf"(?<!\w){re.escape(bare)}(?!\w)")
    found: list[Reference] = []
    lines: list[str] = []
    file_read = -1
    for chunk in chunks.tolist():
        file = int(view.file_of_chunk[chunk])
        entry = view.files[file]
        if file != file_read:
            try:
                lines = index.read(entry.path).decode("utf-8", "replace").split("\n")
            except OSError:
                lines = []
            file_read = file
        defining = {d.start for d in entry.definitions if last_part(d.name) == bare}
        for number in range(int(view.starts[chunk]), min(int(view.ends[chunk]), len(lines)) + 1):
            if number not in defining and word.search(lines[number - 1]) is not None:
                found.append(Reference(entry.path, number, lines[number - 1].strip()[:MAX_LINE_CHARS]))
                if len(found) >= max_results:
                    return found
    return found


def _stands_in(definitions: tuple[Definition, ...], index: int, name: str) -> bool:
    parent = definitions[index].parent
    while parent >= 0:
        if last_part(definitions[parent].name).lower() == name.lower():
            return True
        parent = definitions[parent].parent
    return name.lower() in definitions[index].name.lower()  # `func (c *Context) Copy`, `res.send`
