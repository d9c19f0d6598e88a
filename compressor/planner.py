"""Decides which lines of a tool result are dropped: plain functions of the text and what is visible above it.

Knows no bytes, no store and no clock. Mode `safe`: a line is dropped only where the forwarded request shows it
elsewhere, or where it repeats the line before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sluice.compressor import markers
from sluice.compressor.lines import Lines
from sluice.compressor.provenance import Kind, Provenance
from sluice.compressor.redundancy import Source, VisibleLines
from sluice.compressor.repeats import find_repeats
from sluice.compressor.settings import CompressorSettings


@dataclass(frozen=True, slots=True)
class Omission:
    """Lines `start` to `stop` (exclusive) of a segment that a marker stands for."""

    start: int
    stop: int
    marker: str
    source: Source | None = None
    """Where they are visible; None where they repeat the line before."""


def plan(
    lines: Lines,
    provenance: Provenance,
    recall_id: str,
    visible: VisibleLines,
    is_current: Callable[[Source, Provenance], bool],
    settings: CompressorSettings,
) -> list[Omission]:
    """Which lines of a new segment to drop.

    Args:
        lines: the segment's lines.
        provenance: where it comes from. The report of an edit is never shortened.
        recall_id: under which its original is kept; markers show the first digits.
        visible: every line that the forwarded messages above show.
        is_current: whether a source still holds for a result of this provenance.
        settings: shortest run, lines of context.

    Returns:
        Disjoint omissions in order, each saving more than its marker costs.
    """
    if provenance.kind is Kind.EDIT or len(lines) < settings.min_run_lines:
        return []
    found = list(_seen_above(lines, provenance, recall_id, visible, is_current, settings))
    taken = [(omission.start, omission.stop) for omission in found]
    for start, stop in find_repeats(lines.texts, settings.min_run_lines):
        if all(stop <= other_start or start >= other_stop for other_start, other_stop in taken):
            found.append(Omission(start, stop, markers.repeated(recall_id, stop - start, start + 1, stop)))
    return sorted((omission for omission in found if _pays(lines, omission)), key=lambda omission: omission.start)


def _seen_above(
    lines: Lines,
    provenance: Provenance,
    recall_id: str,
    visible: VisibleLines,
    is_current: Callable[[Source, Provenance], bool],
    settings: CompressorSettings,
) -> Iterator[Omission]:
    runs = list(visible.find_runs(lines, lambda source: is_current(source, provenance)))
    for index, run in enumerate(runs):
        touches_above = index > 0 and runs[index - 1].stop == run.start
        touches_below = index + 1 < len(runs) and runs[index + 1].start == run.stop
        # Beside a line that stays, some context stays too: what is new keeps its neighbourhood.
        start = run.start if touches_above or run.start == 0 else run.start + settings.context_lines
        stop = run.stop if touches_below or run.stop == len(lines) else run.stop - settings.context_lines
        if stop - start < settings.min_run_lines:
            continue
        first, last = lines.numbers[start], lines.numbers[stop - 1]
        numbers = (first, last) if first is not None and last is not None and not run.same_numbers else None
        marker = markers.seen_above(recall_id, stop - start, run.source.position, numbers)
        yield Omission(start, stop, marker, run.source)


def _pays(lines: Lines, omission: Omission) -> bool:
    num_chars = sum(len(text) + 1 for text in lines.texts[omission.start : omission.stop])
    return num_chars > 2 * len(omission.marker)
