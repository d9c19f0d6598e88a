"""Doc comments and type names of a file as questions about it. Knows no repository."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sluice.compressor.syntax import Definition
from sluice.eval.search.data import Target

MAX_QUERY_CHARS = 350
_COMMENT_MARKS = re.compile(r"^\s*(///?|//!|/\*\*?|\*/?|#+|--+|%+|;+|\"\"\"|'''|@\w+(\s+~\w)?)\s?|\s*(\*/|\"\"\")\s*$")
_LEGAL = re.compile(r"(?i)copyright|licen[cs]e|eslint|jshint|frozen_string|coding[:=]|@author|shellcheck|pylint|noqa")
_TYPE_KINDS = frozenset({"class", "struct", "interface", "trait", "module", "protocol", "object", "enum"})


def comment_questions(
    path: str, lines: list[str], definitions: Sequence[Definition]
) -> Iterator[tuple[Target, tuple[int, int] | None, str]]:
    """Target, lines of the comment (None where nothing is to hide), question."""
    first = 0
    while first < min(len(lines), 40) and (not lines[first].strip() or lines[first].startswith(("#!", "package "))):
        first += 1
    last = first
    while last < min(len(lines), 80) and _COMMENT_MARKS.match(lines[last]) is not None:
        last += 1
    if first < len(lines) and (found := _docstring(lines, first, len(lines))) is not None:
        yield Target(path), found[1], found[0]
    elif (text := _sentence(lines[first:last])) is not None:
        yield Target(path), (first + 1, last), text
    for definition in definitions:
        length = definition.end - definition.start
        if length < 3:
            continue
        found = None
        if definition.lead < definition.start:
            text = _sentence(lines[definition.lead - 1 : definition.start - 1])
            found = None if text is None else (text, (definition.lead, definition.start - 1))
        elif path.endswith((".py", ".ex")) and definition.signature_end < definition.end:
            found = _docstring(lines, definition.signature_end, definition.end)
        if found is not None:
            # The comment on what fills a file is a question for the file.
            fills = length > 0.5 * len(lines) and definition.kind in _TYPE_KINDS
            yield Target(path) if fills else Target(path, definition.start, definition.end), found[1], found[0]
    for definition in definitions:
        if definition.kind in _TYPE_KINDS and definition.end - definition.start >= 12 and len(definition.name) > 4:
            yield Target(path), None, definition.name.split("<")[0]


def _docstring(lines: list[str], at: int, limit: int) -> tuple[str, tuple[int, int]] | None:
    """The first sentence and the lines of a Python docstring or an Elixir `@moduledoc` that begins at index `at`."""
    opening = lines[at].strip() if at < len(lines) else ""
    quotes = next((q for q in ('"""', "'''") if re.match(rf"(@\w+ )?(~[sS])?[rRuU]?{q}", opening)), None)
    if quotes is None:
        return None
    end = at
    if opening.count(quotes) < 2:
        end += 1
        while end < min(len(lines) - 1, limit - 1) and quotes not in lines[end]:
            end += 1
    text = _sentence(lines[at : end + 1])
    return None if text is None else (text, (at + 1, end + 1))


def _sentence(lines: Sequence[str]) -> str | None:
    """The comment's first sentence, if it is prose of a useful length."""
    bare = [_COMMENT_MARKS.sub("", _COMMENT_MARKS.sub("", line)).strip() for line in lines]
    paragraph: list[str] = []
    for line in bare:
        if line:
            paragraph.append(line)
        elif paragraph:
            break
    prose = re.sub(r"<[^>]{1,60}>", " ", " ".join(paragraph))  # XML in C#, HTML in Java
    text = " ".join(re.split(r"(?<=[.!?])\s", prose.strip())[0].split()).strip("r\"' ")
    words = re.findall(r"[A-Za-z]{2,}", text)
    if _LEGAL.search(text) is not None or not 5 <= len(words) <= 40 or len(words) * 3 < len(text) // 2:
        return None
    return text[:MAX_QUERY_CHARS]
