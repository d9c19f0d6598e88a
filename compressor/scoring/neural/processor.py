"""What stands before and behind a network: windows are made, logits are combined with features. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sluice.compressor.scoring.neural.bases import BaseTokenizer, find_base
from sluice.compressor.scoring.neural.card import read_card, read_combination
from sluice.compressor.scoring.neural.combine import Combination
from sluice.compressor.scoring.neural.windows import WindowMaker


@dataclass(frozen=True, slots=True)
class Processor:
    """What it takes to ask one model and to use its answer."""

    version: str
    """Of the model."""
    maker: WindowMaker
    combination: Combination


def load_processor(folder: Path, folders: Mapping[str, Path] | None = None) -> Processor:
    """Read it from a model's folder, and its tokenizer from its base.

    Args:
        folder: the model's.
        folders: see `find_base`.

    Raises:
        ModelFileError: the folder holds no model of this version.
        MissingBaseError: the base is not installed.
    """
    card = read_card(folder)
    tokenizer = BaseTokenizer(find_base(card.base, folders))
    return Processor(card.version, WindowMaker(tokenizer, card.shape), read_combination(folder))
