"""Lays windows end to end, so that nothing is padded; what several begin with is laid down once, where that is allowed.

In a network whose tokens read only what is above them, equal beginnings have equal keys and values: the windows of one
result, and of results that came together, share their context. Plain functions of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.neural.types import Ints, Window

MIN_SHARED_TOKENS = 32
"""A shorter common beginning is computed again: to find its keys for each window costs something, too."""
_MIN_SAVED_SHARE = 0.05
"""Less is not worth gathering keys and values."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Windows end to end, in sequences: a window, or a common beginning, or what follows it in one window."""

    token_ids: npt.NDArray[np.int64]
    """(tokens,)"""
    places: npt.NDArray[np.int64]
    """(tokens,): each token's position in its window."""
    bounds: Ints
    """(sequences + 1,): where each sequence begins."""
    key_rows: npt.NDArray[np.int64] | None
    """(keys,): the tokens that each sequence reads, itself at the end, sequence after sequence; None: itself alone."""
    key_bounds: Ints
    """(sequences + 1,): where each sequence's keys begin."""
    line_rows: npt.NDArray[np.int64]
    """(lines,): the last token of each line, window after window in the order that was asked for."""

    @property
    def num_pairs(self) -> int:
        """Pairs of a token and one that it may read, where none reads what is below it: what attention multiplies."""
        sizes, keys = np.diff(self.bounds).astype(np.int64), np.diff(self.key_bounds).astype(np.int64)
        return int((sizes * keys - sizes * (sizes - 1) // 2).sum())


def pack(windows: Sequence[Window], *, is_shared: bool) -> Layout:
    """Lay windows end to end.

    Args:
        windows: at least one.
        is_shared: whether common beginnings are computed once.
    """
    groups = shared_beginnings([window.token_ids for window in windows]) if is_shared else []
    num_saved = sum(length * (len(members) - 1) for members, length in groups)
    num_tokens = sum(len(window.token_ids) for window in windows)
    if num_saved < _MIN_SAVED_SHARE * num_tokens:
        groups = [([index], 0) for index in range(len(windows))]
    pieces: list[Ints] = []
    places: list[npt.NDArray[np.int64]] = []
    keys: list[npt.NDArray[np.int64]] = []
    line_rows: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * len(windows)
    at = 0

    def lay(token_ids: Ints, first_place: int, beginning: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        nonlocal at
        rows = np.arange(at, at + len(token_ids))
        if len(token_ids):
            pieces.append(token_ids)
            places.append(np.arange(first_place, first_place + len(token_ids)))
            keys.append(np.concatenate([beginning, rows]))
            at += len(token_ids)
        return rows

    nothing = np.zeros(0, dtype=np.int64)
    for members, length in groups:
        beginning = lay(windows[members[0]].token_ids[:length], 0, nothing)
        for index in members:
            window = windows[index]
            rows = np.concatenate([beginning, lay(window.token_ids[length:], length, beginning)])
            line_rows[index] = rows[window.line_ends]
    is_plain = all(length == 0 for _, length in groups)
    return Layout(
        np.concatenate(pieces).astype(np.int64),
        np.concatenate(places),
        _bounds(pieces),
        None if is_plain else np.concatenate(keys),
        _bounds(keys),
        np.concatenate(line_rows),
    )


def shared_beginnings(token_ids: Sequence[Ints]) -> list[tuple[list[int], int]]:
    """Groups of windows, by index, each with the length of what its members begin with alike; 0 for one alone."""
    alike: dict[bytes, list[int]] = {}
    for index, ids in enumerate(token_ids):
        alike.setdefault(ids[:MIN_SHARED_TOKENS].tobytes(), []).append(index)
    groups: list[tuple[list[int], int]] = []
    for indexes in alike.values():
        # Sorted by their tokens, windows stand beside those with which they have most in common.
        order = sorted(indexes, key=lambda index: token_ids[index].astype(">i4").tobytes()) if indexes[1:] else indexes
        members, length = order[:1], 0
        for before, index in pairwise(order):
            common = _num_common(token_ids[before], token_ids[index])
            joined = min(common, length) if len(members) > 1 else common
            # Joined where more is saved with it than without, and worth the while.
            if joined >= MIN_SHARED_TOKENS and joined * len(members) >= length * (len(members) - 1):
                members.append(index)
                length = joined
            else:
                groups.append((members, length))
                members, length = [index], 0
        groups.append((members, length))
    return groups


def _num_common(one: Ints, other: Ints) -> int:
    """How many tokens two windows begin with alike."""
    num = min(len(one), len(other))
    differs = one[:num] != other[:num]
    return int(differs.argmax()) if differs.any() else num


def _bounds(pieces: Sequence[npt.NDArray[np.generic]]) -> Ints:
    return np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int32)
