"""Dropped lines that a conversation comes back to: found by what the newest messages touch, and given back unasked.

A model rarely asks for what it does not see, so nothing here waits for it to ask. What touches a dropped line: an edit
whose old text holds it, a stack trace or search hit that names its number, a quote of it, and an agent's own cache
that answers "unchanged since last read".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sluice.compressor import markers
from sluice.compressor.files import name_of
from sluice.compressor.lines import Lines
from sluice.compressor.provenance import Kind, Provenance, same_path

_LINE_REFERENCE = re.compile(
    r"""(?:File\ "(?P<python>[^"\n]+)",\ line\ (?P<python_line>\d+))
      | \w\.\w+[:(](?P<line>\d+)                                     # the end of a path; see `_named`""",
    re.VERBOSE,
)
_PATH = re.compile(r"[\w./@+-]*")
_MAX_DIGITS = 9
"""Of a line's number: no file has more lines."""
_UNCHANGED = re.compile(r"\b(?:file )?(?:is )?unchanged since (?:the )?last read\b", re.IGNORECASE)
_MIN_QUOTE_CHARS = 16
"""A shorter line says too little to be a quote."""
_NEIGHBOURS = 10
"""Lines given back on either side of one that is touched."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Lines of one result that were dropped and that no other place shows."""

    position: int
    """Of the message, from 1 after the leading system messages."""
    text_index: int
    start: int
    stop: int
    """Line after the last, from 0 in the result."""
    lines: Lines
    """The whole result."""
    recall_id: str
    """Of the result."""
    path: str | None
    first_line: int | None
    """Number in the file of the first line that the result shows of it, where that is known."""
    num_head_lines: int = 0
    """Lines of the result before that one."""
    quotable: frozenset[str] = field(init=False, compare=False, repr=False)
    """Its lines that are long enough to be told apart in a quote."""

    def __post_init__(self) -> None:
        lines = map(str.strip, self.lines.bodies[self.start : self.stop])
        object.__setattr__(self, "quotable", frozenset(line for line in lines if len(line) >= _MIN_QUOTE_CHARS))

    def number(self, index: int) -> int | None:
        """Line `index`'s number in the file."""
        if (number := self.lines.numbers[index]) is not None or self.first_line is None:
            return number
        return self.first_line + index - self.num_head_lines if index >= self.num_head_lines else None


@dataclass(frozen=True, slots=True)
class Touch:
    """What the newest messages say that may touch a gap."""

    written: Sequence[str]
    """Texts that the agent or a person wrote: prose, and the strings in the agent's calls."""
    shown: Sequence[tuple[str, Provenance]]
    """Tool results."""


def touched(gaps: Iterable[Gap], touch: Touch) -> list[Gap]:
    """The parts of the gaps that the newest messages touch, in order."""
    quotes = {line for text in touch.written for line in _quotable(text)}
    texts = [*touch.written, *(text for text, _ in touch.shown)]
    references: dict[str, list[tuple[str, int]]] = {}
    for text in texts:
        for path, number in _named(text):
            references.setdefault(name_of(path), []).append((path, number))
    unchanged = [p.path for text, p in touch.shown if p.kind is Kind.READ and p.path and _UNCHANGED.search(text)]
    found: list[Gap] = []
    for gap in gaps:
        if gap.path is not None and any(same_path(gap.path, path) for path in unchanged):
            found.append(gap)
            continue
        indexes: set[int] = set()
        if not quotes.isdisjoint(gap.quotable):
            indexes = {i for i in range(gap.start, gap.stop) if gap.lines.bodies[i].strip() in quotes}
        if gap.path is not None and (named := references.get(name_of(gap.path))):
            numbers = {number for path, number in named if same_path(gap.path, path)}
            indexes |= {index for index in range(gap.start, gap.stop) if numbers and gap.number(index) in numbers}
        if indexes:
            start = max(gap.start, min(indexes) - _NEIGHBOURS)
            stop = min(gap.stop, max(indexes) + 1 + _NEIGHBOURS)
            found.append(replace(gap, start=start, stop=stop))
    return found


def affordable(gaps: Sequence[Gap], to_spend: float, price_per_char: float) -> tuple[list[Gap], float]:
    """Those of the gaps, from the newest, that may be given back, each text once, and what is left to spend."""
    chosen: list[Gap] = []
    given: set[tuple[str, ...]] = set()
    for gap in reversed(gaps):
        bodies = gap.lines.bodies[gap.start : gap.stop]
        if bodies in given:
            continue
        given.add(bodies)
        price = len(render([gap])) * price_per_char
        if price <= to_spend:
            to_spend -= price
            chosen.append(gap)
    return chosen[::-1], to_spend


def without(gaps: Iterable[Gap], given: Sequence[Gap]) -> list[Gap]:
    """What is left of some gaps where others are given back anyway."""
    left = list(gaps)
    for other in given:
        place = (other.position, other.text_index)
        left = [
            rest
            for gap in left
            for rest in (less(gap, other.start, other.stop) if (gap.position, gap.text_index) == place else (gap,))
        ]
    return left


def render(gaps: Sequence[Gap]) -> str:
    """The lines of these gaps, each passage under a heading, to stand at the end of a result."""
    parts: list[str] = []
    for gap in gaps:
        first, last = gap.number(gap.start) or gap.start + 1, gap.number(gap.stop - 1) or gap.stop
        parts.append(markers.restored(gap.recall_id, gap.stop - gap.start, first, last, gap.position))
        parts += gap.lines.texts[gap.start : gap.stop]
    return "\n".join(parts)


def less(gap: Gap, start: int, stop: int) -> Iterator[Gap]:
    """What is left of a gap once lines `start` to `stop` were given back."""
    for left, right in ((gap.start, min(gap.stop, start)), (max(gap.start, stop), gap.stop)):
        if left < right:
            yield replace(gap, start=left, stop=right)


def _quotable(text: str) -> Iterator[str]:
    return (line for raw in text.split("\n") if len(line := raw.strip().strip("`")) >= _MIN_QUOTE_CHARS)


def _named(text: str) -> Iterator[tuple[str, int]]:
    """Places that a text names by file and line: stack traces, compilers' messages, search hits."""
    done = 0
    for match in _LINE_REFERENCE.finditer(text):
        path, digits = match["python"], match["python_line"] or match["line"]
        if path is None:
            # Read backwards from where it ends: a pattern that began with the path would try each character of a
            # long word, such as an image in base64, as the path's first, and take hours.
            stop = match.start("line") - 1
            before = _PATH.match(text[done:stop][::-1])
            assert before is not None, "it matches nothing, too"
            path = text[stop - before.end() : stop]
        if len(digits) <= _MAX_DIGITS:
            yield path, int(digits)
        done = match.end()
