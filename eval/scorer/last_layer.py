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
from sluice.eval.scorer.trees import Growth, added, grow, to_forest

CORRECTION = Growth(num_trees=60, num_leaves=8, learning_rate=0.06)
"""How the trees that look at logits are grown: few and small, for they only mend what the features' trees say."""


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


def corrected(alone: Forest, sources: Sequence[Source], growth: Growth = CORRECTION) -> Forest:
    """The features' trees, and trees that mend what they say by what the network said.

    Args:
        alone: over features.
        sources: conversations with the logits of networks that had not seen them.
        growth: of the added trees.
    """
    examples = concatenate([source.examples for source in sources])
    margins = alone.margins(np.ascontiguousarray(examples.features[:, : len(FEATURES)]))
    return added(alone, to_forest(grow(examples, growth, COLUMNS, margins), COLUMNS))


def compare(group: str, held: Sequence[Source], trained: tuple[Forest, Forest]) -> Iterator[tuple[str, HeldOut]]:
    """The figures of both on conversations that neither has seen."""
    alone, both = trained
    yield from (
        ("features", one) for one in held_out(group, concatenate([s.examples for s in without_logits(held)]), alone)
    )
    yield from (("both", one) for one in held_out(group, concatenate([s.examples for s in held]), both))
