"""How a model fares on agents and repositories that it has not seen: facts lost at equal shares of dropped tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.features import FEATURES
from sluice.compressor.scoring.forest import Forest
from sluice.eval.scorer.data import Examples, Source, balanced, concatenate
from sluice.eval.scorer.trees import Growth, grow, to_forest

DROPPED_SHARES = (0.3, 0.5, 0.7)
"""Of the tokens of all lines, cheapest facts per token first."""
MIN_NEEDED = 100
"""Facts without which a held-out group says nothing."""
_LINE_CHARS, _INDENT, _IS_EPOCH = (FEATURES.index(name) for name in ("line_chars", "indent", "is_epoch"))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One head's figures on one group, at one moment."""

    group: str
    head: str
    moment: str
    num_needed: int
    lost: tuple[float, ...]
    """Share of the needed facts on the dropped lines, at each of `DROPPED_SHARES`."""


def leave_one_out(sources: Sequence[Source], growth: Growth, *, by: str) -> Iterator[HeldOut]:
    """Train on all groups but one, and look at that one.

    Args:
        sources: conversations' examples, not balanced.
        growth: see `Growth`.
        by: `agent` or `repository`.
    """
    for group in sorted({getattr(source, by) for source in sources}):
        held, rest = parted(sources, group, by=by)
        if min(held.num_words.sum(), held.num_lines.sum()) >= MIN_NEEDED and len(rest.weights):
            yield from held_out(group, held, to_forest(grow(rest, growth)))


def parted(sources: Sequence[Source], group: str, *, by: str) -> tuple[Examples, Examples]:
    """A group's examples as they are, and those of all others as they are trained on: balanced."""
    held = [source for source in sources if getattr(source, by) == group]
    rest = balanced([source for source in sources if getattr(source, by) != group])
    return concatenate([source.examples for source in held]), concatenate([source.examples for source in rest])


def held_out(group: str, examples: Examples, forest: Forest) -> Iterator[HeldOut]:
    """A forest's figures on examples that it has not seen."""
    margins = forest.margins(examples.features)
    # Its line break and half a token of what stands for it belong to a line's price.
    num_tokens = (examples.features[:, _LINE_CHARS] + examples.features[:, _INDENT] + 3) / np.float32(4)
    is_epoch = examples.features[:, _IS_EPOCH] > 0
    for head, needed, is_fact in (
        ("line", examples.num_lines, examples.is_line_fact),
        ("word", examples.num_words, examples.has_word_fact),
    ):
        chances = (is_fact / (1 + np.exp(-margins[:, forest.heads.index(head)]))).astype(np.float32)
        for moment, mask in (("arrival", ~is_epoch), ("epoch", is_epoch)):
            lost = _lost(needed[mask], (chances / num_tokens)[mask], (num_tokens * examples.weights)[mask])
            yield HeldOut(group, head, moment, int(needed[mask].sum()), lost)


def as_table(figures: Iterable[tuple[str, HeldOut]]) -> Iterator[str]:
    """Figures as lines of text, each with the name of the model that they are of."""
    shares = "  ".join(f"{share:5.0%}" for share in DROPPED_SHARES)
    head = f"  {'held out':24}{'model':9}{'head':6}{'moment':9}{'needed':>7}   facts lost, tokens dropped: "
    yield f"{head}{shares}"
    for model, one in figures:
        lost = "  ".join(f"{share:5.1%}" for share in one.lost)
        yield f"  {one.group:24}{model:9}{one.head:6}{one.moment:9}{one.num_needed:7}".ljust(len(head)) + lost


def _lost(
    needed: npt.NDArray[np.float32], value: npt.NDArray[np.float32], num_tokens: npt.NDArray[np.float32]
) -> tuple[float, ...]:
    if not needed.sum():
        return (0.0,) * len(DROPPED_SHARES)
    order = np.argsort(value, kind="stable")
    dropped = np.cumsum(num_tokens[order], dtype=np.float64)
    lost = np.cumsum(needed[order], dtype=np.float64) / needed.sum()
    places = np.searchsorted(dropped, np.array(DROPPED_SHARES) * dropped[-1])
    return tuple(float(lost[min(place, len(lost) - 1)]) for place in places)
