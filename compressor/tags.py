"""Passages between a tag and the one that ends it, as agents write them into texts: `<name>…</name>`.

Read once from top to bottom. One pattern for tag, passage and end would look for the end of every tag that has none
through the whole rest of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Passage(NamedTuple):
    """One of them; passages do not overlap."""

    name: str
    text: str
    """What stands between the tags."""
    start: int
    stop: int
    """One past its end, the tags included."""


def passages(text: str, tag: re.Pattern[str], end: str = "</{}>") -> Iterator[Passage]:
    """The passages of a text, in order; a tag that nothing ends begins none.

    Args:
        text: any text.
        tag: begins a passage; its first group is its name.
        end: what ends it, `{}` standing for its name.
    """
    done = 0
    unended: set[str] = set()
    for begun in tag.finditer(text):
        ending = end.format(begun[1])
        if begun.start() < done or ending in unended:
            continue
        at = text.find(ending, begun.end())
        if at < 0:
            unended.add(ending)
            continue
        done = at + len(ending)
        yield Passage(begun[1], text[begun.end() : at], begun.start(), done)


def less(text: str, tag: re.Pattern[str]) -> str:
    """A text without its passages."""
    parts: list[str] = []
    done = 0
    for passage in passages(text, tag):
        parts.append(text[done : passage.start])
        done = passage.stop
    return "".join([*parts, text[done:]])
