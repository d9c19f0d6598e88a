"""Which lines to drop at a price: the cut of a segment into kept and dropped runs that saves the most.

A plain dynamic program over lines (Viterbi with two states). Knows no scorer and no text.
"""

from __future__ import annotations

from collections.abc import Sequence


def best_spans(
    losses: Sequence[float],
    num_tokens: Sequence[float],
    *,
    price: float,
    marker_tokens: float,
    min_lines: int = 1,
    is_fixed: Sequence[bool] | None = None,
) -> list[tuple[int, int]]:
    """Ranges (start, stop) of lines to drop, in order.

    Maximizes, over the dropped lines, `price` × tokens − loss, less `price` × `marker_tokens` for each range.

    Args:
        losses: of each line: the facts that its loss costs.
        num_tokens: of each line.
        price: facts that one saved token is worth; the one dial from careful to bold.
        marker_tokens: what stands for a range costs.
        min_lines: shorter ranges are not given.
        is_fixed: lines that have been dropped already: they stay dropped, cost nothing and save nothing, and a range
            that touches them needs no marker of its own.
    """
    kept, dropped = 0.0, -price * marker_tokens
    from_kept: list[bool] = []
    to_kept: list[bool] = []
    for line, (loss, tokens) in enumerate(zip(losses, num_tokens, strict=True)):
        fixed = is_fixed is not None and is_fixed[line]
        begun = kept - price * marker_tokens
        # Best value of all lines so far if this one is dropped, and if it is kept.
        is_begun = begun > dropped or line == 0
        from_kept.append(is_begun)
        now_dropped = max(begun, dropped) if line else -price * marker_tokens
        is_ended = dropped > kept and line > 0
        to_kept.append(is_ended)
        now_kept = max(kept, dropped) if line else 0.0
        if fixed:
            kept, dropped = float("-inf"), now_dropped
        else:
            kept, dropped = now_kept, now_dropped + price * tokens - loss
    return [
        (start, stop)
        for start, stop in _ranges_back(dropped > kept, from_kept, to_kept)
        if stop - start >= min_lines or (is_fixed is not None and any(is_fixed[start:stop]))
    ]


def _ranges_back(is_dropped: bool, from_kept: Sequence[bool], to_kept: Sequence[bool]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    stop = len(from_kept)
    for line in reversed(range(len(from_kept))):
        if is_dropped and from_kept[line]:
            ranges.append((line, stop))
            is_dropped = False
        elif not is_dropped and to_kept[line]:
            is_dropped = True
            stop = line
    return ranges[::-1]
