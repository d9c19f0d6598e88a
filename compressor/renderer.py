"""Puts a segment together again with markers in the place of what was dropped. Kept lines are verbatim."""

from __future__ import annotations

from collections.abc import Sequence

from sluice.compressor.lines import Lines, join
from sluice.compressor.planner import Omission


def render(lines: Lines, omissions: Sequence[Omission]) -> str:
    """The text to forward.

    Args:
        lines: the segment.
        omissions: disjoint and in order.
    """
    texts: list[str] = []
    index = 0
    for omission in omissions:
        texts += lines.texts[index : omission.start]
        texts.append(omission.marker)
        index = omission.stop
    texts += lines.texts[index:]
    return join(texts, ends_with_newline=lines.ends_with_newline)
