"""The saving as a measured difference: conversations that were compressed against those that were held out.

Plain arithmetic on what each conversation cost. Intervals are percentile bootstraps by conversation (Efron): the turns
of one conversation are no independent draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MIN_CONVERSATIONS = 20
"""Fewer than these in either arm, and no interval is given: a bootstrap of a handful looks surer than it is."""
_NUM_RESAMPLES = 1_000
_LEVEL = 0.95
_MIN_DOLLARS = 1e-9
"""Less than this is nothing: no share of it means anything."""


class Spent(msgspec.Struct, frozen=True):
    """What one conversation came to."""

    num_turns: int
    cost: float
    """In dollars."""


class Saving(msgspec.Struct, frozen=True):
    """A share that was saved: 0.2 is a fifth less than held out, below 0 is dearer."""

    share: float
    low: float | None = None
    """Lower end of the 95 % interval; None where there is too little data for one."""
    high: float | None = None


class Comparison(msgspec.Struct, frozen=True):
    """Both arms beside each other."""

    num_treated: int
    """Conversations that were compressed."""
    num_held_out: int
    """Conversations that went through untouched."""
    per_turn: Saving | None
    """By mean cost of a turn; None where an arm holds nothing."""
    per_conversation: Saving | None
    """By mean cost of a conversation: counts turns that compression saved, or added, as well."""
    note: str
    """What the figures are worth, in words."""


def compare(treated: Sequence[Spent], held_out: Sequence[Spent], *, seed: int = 0) -> Comparison:
    """Compare the arms.

    Args:
        treated: conversations that were compressed.
        held_out: conversations that went through untouched.
        seed: of the resampling: the same data give the same interval.
    """
    import numpy as np  # not before somebody asks: requests need no arrays

    # Rows of turns and of dollars: drawing from whole rows is five times faster than drawing pairs.
    arms = tuple(np.array([[one.num_turns for one in arm], [one.cost for one in arm]]) for arm in (treated, held_out))
    counts = (len(treated), len(held_out))
    if min(counts) == 0 or not arms[1][1].sum() >= _MIN_DOLLARS:
        return Comparison(*counts, None, None, _note(counts, None))
    per_turn, per_conversation = _saved(arms[0].sum(axis=1), arms[1].sum(axis=1), counts)
    if min(counts) < MIN_CONVERSATIONS:
        return Comparison(*counts, Saving(per_turn), Saving(per_conversation), _note(counts, None))
    rng = np.random.default_rng(seed)
    draws = np.array(
        [_saved(_resampled(arms[0], rng), _resampled(arms[1], rng), counts) for _ in range(_NUM_RESAMPLES)]
    )
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    turn_saving = Saving(per_turn, float(low[0]), float(high[0]))
    return Comparison(
        *counts, turn_saving, Saving(per_conversation, float(low[1]), float(high[1])), _note(counts, turn_saving)
    )


def _resampled(arm: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Turns and dollars, float64 (2,), of as many conversations drawn anew."""
    import numpy as np

    drawn = rng.integers(arm.shape[1], size=arm.shape[1], dtype=np.uint32)
    return np.array([row.take(drawn).sum() for row in arm])


def _saved(
    treated: npt.NDArray[np.float64], held_out: npt.NDArray[np.float64], counts: tuple[int, int]
) -> tuple[float, float]:
    """Shares saved per turn and per conversation, from both arms' sums of turns and dollars."""
    if held_out[1] < _MIN_DOLLARS or treated[0] <= 0:
        return 0.0, 0.0
    cost_ratio = treated[1] / held_out[1]
    return float(1 - cost_ratio * held_out[0] / treated[0]), float(1 - cost_ratio * counts[1] / counts[0])


def _note(counts: tuple[int, int], saving: Saving | None) -> str:
    if counts[1] == 0:
        return "nothing was held out: the saving is worked out, not measured (setting holdout)"
    if min(counts) < MIN_CONVERSATIONS:
        return (
            f"too little data for an interval: {counts[0]} conversations compressed and {counts[1]} held out, "
            f"{MIN_CONVERSATIONS} of each are needed"
        )
    if saving is None:
        return "nothing that was held out has a price"
    assert saving.low is not None
    assert saving.high is not None
    if saving.low <= 0 <= saving.high:
        return "the interval holds 0: no difference is shown yet"
    return "the difference is shown at the 95 % level"
