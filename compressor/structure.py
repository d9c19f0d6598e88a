"""What the structure of code adds to a choice of lines: whole statements, and the header of what a kept line is in.

A line that stands alone is easily misread: which function is it in, where does the call end that it begins? So a
definition keeps its signature when lines inside it are kept, and a short statement is kept or dropped as a whole.
Skeletons with signatures are also how Aider's repository map shows code. Knows no scorer and no prices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sluice.compressor.lines import Lines
from sluice.compressor.provenance import Kind, Provenance
from sluice.compressor.syntax import language_of, outline

MAX_STATEMENT_LINES = 8
"""A longer statement (a table, a long literal) may lose lines in its middle."""
_MAX_HEADER_LINES = 4
"""Of a signature, decorators included; a longer one keeps its first lines."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A code text's definitions and short statements, as line ranges from 0, the end exclusive."""

    bodies: tuple[tuple[int, int, int], ...]
    """Of each definition: first line, line after its header, line after its last; outer ones before inner ones."""
    statements: tuple[tuple[int, int], ...]
    """Statements of several lines, at most `MAX_STATEMENT_LINES`, that hold no other statement of several lines."""

    def complete(self, keep: Sequence[bool]) -> list[bool]:
        """A choice of lines, and the lines that it takes to read it.

        Args:
            keep: of each line, whether it stays.
        """
        kept = list(keep)
        for start, stop in self.statements:
            if any(kept[start:stop]):
                kept[start:stop] = [True] * (stop - start)
        # From the inside out, so that a kept header brings the one around it.
        for start, body, stop in reversed(self.bodies):
            if any(kept[start:stop]):
                kept[start:body] = [True] * (body - start)
        return kept


_NONE = Structure((), ())


def structure_of(lines: Lines, provenance: Provenance) -> Structure:
    """The structure of a result that shows a file of code; an empty one for every other, and without a parser.

    Args:
        lines: of the result, gutters read.
        provenance: says which file it shows.
    """
    head = provenance.num_head_lines
    code = lines.bodies[head:]
    if provenance.kind is not Kind.READ or provenance.path is None or len(code) < 3:
        return _NONE
    language = language_of(provenance.path, code[0].encode("utf-8", "replace"))
    if language is None:
        return _NONE
    found = outline("\n".join(code).encode("utf-8", "replace"), language)
    if found is None:
        return _NONE
    num_lines, first = len(lines), head - 1
    bodies = tuple(
        (
            first + d.start,
            min(head + d.signature_end, first + d.start + _MAX_HEADER_LINES, num_lines),
            min(head + d.end, num_lines),
        )
        for d in found.definitions
    )
    spans = [(first + s.start, min(head + s.end, num_lines)) for s in found.statements if s.end > s.start]
    return Structure(bodies, tuple(_short_leaves(spans)))


def _short_leaves(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans (sorted by start, outer first) that hold no other one and are short."""
    for index, (start, stop) in enumerate(spans):
        inner = spans[index + 1] if index + 1 < len(spans) else (stop, stop)
        if stop - start <= MAX_STATEMENT_LINES and inner[0] >= stop:
            yield start, stop
