"""Grows the last layer: trees over the features and what a network said of lines that it had not seen.

Beside it, what features alone and both together lose on conversations that neither has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from sluice.compressor.scoring.features import FEATURES
from sluice.compressor.scoring.forest import Forest
from sluice.compressor.scoring.neural.combine import COLUMNS
from sluice.eval.scorer.crossval import HeldOut, held_out
from sluice.eval.scorer.data import Examples, Source, concatenate
from sluice.eval.scorer.logits import Said
from sluice.eval.scorer.trees import Growth, averaged, grow, to_forest


def with_logits(named: Sequence[tuple[str, Source]], said: Mapping[str, Said]) -> list[Source]:
    """Examples with the columns of the logits behind their features; those without logits are left out."""
    found: list[Source] = []
    for name, source in named:
        if name not in said or not said[name].results:
            continue
        columns = said[name].columns(source.examples)
        known = ~np.isnan(columns[:, 0])
        examples = selected(source.examples, known)
        features = np.concatenate([examples.features, columns[known]], axis=1)
        found.append(replace(source, examples=replace(examples, features=features)))
    return found


def without_logits(sources: Sequence[Source]) -> list[Source]:
    """The same examples with their features alone."""
    return [
        replace(source, examples=replace(source.examples, features=source.examples.features[:, : len(FEATURES)]))
        for source in sources
    ]


def selected(examples: Examples, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Examples:
    """Some of the examples."""
    return Examples(*(getattr(examples, name)[mask] for name in Examples.__dataclass_fields__))


def forests(sources: Sequence[Source], growth: Growth, alone: Forest | None = None) -> tuple[Forest, Forest]:
    """Trees over features alone, and the last layer: the mean of these and of trees over both.

    Trees over both rank best where all is new, and are the surest where they should not be; the mean is neither.

    Args:
        sources: with the columns of logits.
        growth: of the trees.
        alone: trees over features that are there already; None: they are grown on the same examples.
    """
    if alone is None:
        alone = to_forest(grow(concatenate([source.examples for source in without_logits(sources)]), growth))
    both = to_forest(grow(concatenate([source.examples for source in sources]), growth, COLUMNS), COLUMNS)
    return alone, averaged(alone, both)


def compare(group: str, held: Sequence[Source], trained: tuple[Forest, Forest]) -> Iterator[tuple[str, HeldOut]]:
    """The figures of both on conversations that neither has seen."""
    alone, both = trained
    yield from (
        ("features", one) for one in held_out(group, concatenate([s.examples for s in without_logits(held)]), alone)
    )
    yield from (("both", one) for one in held_out(group, concatenate([s.examples for s in held]), both))
