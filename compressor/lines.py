"""A tool result as lines: split without loss, and read with the number gutters that agents put before code.

A gutter is taken for one only where the numbers of consecutive lines run on, so that `10:30 standup` stays text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_GUTTER = re.compile(r"[^\S\n]*(\d{1,7})(?:→|\t|\|[^\S\n]?|:[^\S\n]?|-)")
"""`   41→code` (Claude Code), `    41<TAB>code` (cat -n), `00041| code`, `41: code` (OpenCode), `41-` (grep -n)."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A text as lines. `join` of what `split` gave is the text, byte for byte."""

    texts: tuple[str, ...]
    """Each line as it stands, gutter included, without its line feed."""
    bodies: tuple[str, ...]
    """Each line less its gutter: what is compared."""
    numbers: tuple[int | None, ...]
    """The gutter's number, where there is one."""
    ends_with_newline: bool

    def __len__(self) -> int:
        return len(self.texts)


@lru_cache(maxsize=32)
def split(text: str) -> Lines:
    """Split a text into lines and read their gutters.

    Several modules ask for the lines of the same result while it is decided, and keep them as long as its conversation
    is held: they share one copy.
    """
    texts = text.split("\n")
    ends_with_newline = len(texts) > 1 and texts[-1] == ""
    if ends_with_newline:
        texts.pop()
    bodies = list(texts)
    numbers: list[int | None] = [None] * len(texts)
    matches = [_GUTTER.match(line) for line in texts]
    if any(matches):
        numbers = _running_numbers([int(match[1]) if match else None for match in matches])
        bodies = [
            line[match.end() :] if match and number is not None else line
            for line, match, number in zip(texts, matches, numbers, strict=True)
        ]
    return Lines(tuple(texts), tuple(bodies), tuple(numbers), ends_with_newline)


def join(texts: list[str], *, ends_with_newline: bool) -> str:
    """Put lines together again."""
    return "\n".join(texts) + ("\n" if ends_with_newline else "")


def _running_numbers(numbers: list[int | None]) -> list[int | None]:
    """Keep a number only where the line before or after carries its neighbour."""
    runs_on = [a is not None and b is not None and b == a + 1 for a, b in pairwise(numbers)]
    return [
        number if (index > 0 and runs_on[index - 1]) or (index < len(runs_on) and runs_on[index]) else None
        for index, number in enumerate(numbers)
    ]
