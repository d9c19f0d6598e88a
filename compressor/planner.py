"""Decides which lines of a tool result are dropped: plain functions of the text and what is visible above it.

Knows no bytes, no store and no clock. Mode `safe`: a line is dropped only where the forwarded request shows it
elsewhere, or where it repeats the line before it. Other modes also drop what was judged not to be needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from sluice.compressor import markers
from sluice.compressor.ledger import Reason
from sluice.compressor.lines import Lines
from sluice.compressor.provenance import Kind, Provenance
from sluice.compressor.redundancy import Run, Source, VisibleLines
from sluice.compressor.repeats import find_repeats
from sluice.compressor.settings import CompressorSettings


@dataclass(frozen=True, slots=True)
class Omission:
    """Lines `start` to `stop` (exclusive) of a segment that a marker stands for."""

    start: int
    stop: int
    reason: Reason
    marker: str
    position: int | None = None
    """Of the message that shows them, where one does."""


def plan(
    lines: Lines,
    provenance: Provenance,
    recall_id: str,
    visible: VisibleLines,
    is_current: Callable[[Source, Provenance], bool],
    keep: Sequence[bool] | None,
    settings: CompressorSettings,
    *,
    pinned: Collection[int] = (),
) -> list[Omission]:
    """Which lines of a segment to drop.

    Args:
        lines: the segment's lines.
        provenance: where it comes from. The report of an edit is never shortened.
        recall_id: under which its original is kept; markers show the first digits.
        visible: every line that the forwarded messages above show.
        is_current: whether a source still holds for a result of this provenance.
        keep: for each line whether it is worth its tokens; None keeps all.
        settings: shortest run, lines of context.
        pinned: lines that somebody wants kept, beside those between `<keepContext>` tags.

    Returns:
        Disjoint omissions in order, each saving more than its marker costs.
    """
    if provenance.kind is Kind.EDIT or len(lines) < settings.min_run_lines:
        return []
    pinned = _tagged(lines).union(pinned)
    runs = list(visible.find_runs(lines, lambda source: is_current(source, provenance)))
    if pinned:
        runs = [part for run in runs for part in _around(run, pinned)]
        keep = keep and [worth or index in pinned for index, worth in enumerate(keep)]
    stays = _staying(len(lines), runs, keep)
    found: list[Omission] = []
    for run in runs:
        start, stop = _less_context(run, stays, settings.context_lines)
        if stop - start >= settings.min_run_lines:
            marker = markers.seen_above(recall_id, stop - start, run.source.position, _moved(lines, run, start, stop))
            found.append(Omission(start, stop, Reason.SEEN_ABOVE, marker, run.source.position))
    found = _paying(lines, found)
    for start, stop in find_repeats(lines.texts, settings.min_run_lines):
        if pinned.isdisjoint(range(start, stop)) and all(stop <= o.start or start >= o.stop for o in found):
            marker = markers.omitted(recall_id, stop - start, start + 1, stop)
            found.append(Omission(start, stop, Reason.REPEATED, marker))
    if keep is not None:
        for start, stop in _not_needed(keep, found):
            if stop - start >= settings.min_dead_lines:
                first, last = lines.numbers[start] or start + 1, lines.numbers[stop - 1] or stop
                marker = markers.omitted(recall_id, stop - start, first, last)
                found.append(Omission(start, stop, Reason.NOT_NEEDED, marker))
    return sorted(_paying(lines, found), key=lambda omission: omission.start)


def _tagged(lines: Lines) -> set[int]:
    """Lines that somebody marked to be kept: `<keepContext>…</keepContext>`, the tags included."""
    tagged: set[int] = set()
    start: int | None = None
    for index, text in enumerate(lines.texts):
        if start is None and "<keepContext>" in text:
            start = index
        if start is not None and "</keepContext>" in text:
            tagged.update(range(start, index + 1))
            start = None
    return tagged


def _around(run: Run, pinned: Collection[int]) -> Iterator[Run]:
    """The parts of a run that hold no pinned line."""
    start = run.start
    for index in range(run.start, run.stop + 1):
        if index == run.stop or index in pinned:
            if index > start:
                yield replace(run, start=start, stop=index)
            start = index + 1


def _staying(num_lines: int, runs: Sequence[Run], keep: Sequence[bool] | None) -> list[bool]:
    """Which lines go out whatever becomes of the runs."""
    stays = list(keep) if keep is not None else [True] * num_lines
    for run in runs:
        stays[run.start : run.stop] = [False] * len(run)
    return stays


def _less_context(run: Run, stays: Sequence[bool], num_context: int) -> tuple[int, int]:
    """A run without the lines beside a line that goes out: what is new keeps its neighbourhood."""
    start = run.start + num_context if run.start > 0 and stays[run.start - 1] else run.start
    stop = run.stop - num_context if run.stop < len(stays) and stays[run.stop] else run.stop
    return start, stop


def _moved(lines: Lines, run: Run, start: int, stop: int) -> tuple[int, int] | None:
    """The numbers that the dropped lines carry, where the copy does not show the same."""
    first, last = lines.numbers[start], lines.numbers[stop - 1]
    return (first, last) if first is not None and last is not None and not run.same_numbers else None


def _not_needed(keep: Sequence[bool], taken: Sequence[Omission]) -> Iterator[tuple[int, int]]:
    """Ranges of lines that are not worth their tokens and not dropped already."""
    drop = [not worth for worth in keep]
    for omission in taken:
        drop[omission.start : omission.stop] = [False] * (omission.stop - omission.start)
    start: int | None = None
    for index, dropped in enumerate([*drop, False]):
        if dropped and start is None:
            start = index
        elif not dropped and start is not None:
            yield start, index
            start = None


def _paying(lines: Lines, omissions: Sequence[Omission]) -> list[Omission]:
    """Those that save at least twice what their marker costs; a judge has counted the marker already."""
    return [
        omission
        for omission in omissions
        if sum(len(text) + 1 for text in lines.texts[omission.start : omission.stop])
        > len(omission.marker) * (1 if omission.reason is Reason.NOT_NEEDED else 2)
    ]
