"""Which lines of a session stand in one conversation, where its user went back and asked something else.

A session is a tree of lines, each of which names its parent. It branches where two prompts have the same parent; all
else that looks like a branch is none: of calls made side by side, each result names its own call as its parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """One line."""

    id: str
    """Empty where it has none."""
    parent: str | None
    is_prompt: bool
    """Whether a branch can begin here: with what a person said, or with the summary of a compaction."""
    is_root: bool
    """Whether nothing comes before it, where it has no parent."""


def branches(nodes: Sequence[Node]) -> list[list[int]]:
    """The indexes of each conversation's lines, in order; the one that ends in the newest branch comes first.

    A line without a parent in the session goes on from the line before it, unless it is a root.
    """
    known = {node.id for node in nodes if node.id}
    if not any(node.parent in known for node in nodes):  # written without parents
        return [list(range(len(nodes)))] if nodes else []
    segments: list[list[int]] = []
    parents: list[int | None] = []
    segment_of: dict[str | None, int] = {}
    place: int | None = None  # of the segment that the line before belongs to
    for index, node in enumerate(nodes):
        if node.parent in segment_of:
            place = segment_of[node.parent]
        elif node.is_root and not node.parent:
            place = None
        if node.is_prompt or place is None:
            parents.append(place)
            segments.append([])
            place = len(segments) - 1
        if node.id:
            segment_of[node.id] = place
        segments[place].append(index)
    ends = [number for number in range(len(segments)) if number not in parents]
    newest = max(ends, key=lambda end: segments[end][-1])
    return [_path(end, segments, parents) for end in sorted(ends, key=lambda end: (end != newest, end))]


def _path(end: int, segments: Sequence[list[int]], parents: Sequence[int | None]) -> list[int]:
    found: list[int] = []
    place: int | None = end
    while place is not None:
        found += segments[place]
        place = parents[place]
    return sorted(found)
