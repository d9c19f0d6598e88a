"""What is known of a trained model without its weights: its card, and its last layer. Needs no torch and no base.

A model is a folder: `card.json` (shape, base, figures), `adapter.safetensors` (adapters, head), `combination.npz` (the
last layer's trees).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.forest import read_forest
from sluice.compressor.scoring.neural.bases import Base
from sluice.compressor.scoring.neural.combine import COLUMNS, Combination
from sluice.compressor.scoring.neural.windows import WindowShape

CARD, ADAPTER, COMBINATION = "card.json", "adapter.safetensors", "combination.npz"


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model without its weights."""

    name: str
    version: str
    """A digest of the adapter, the shape and the last layer."""
    base: str
    """See `find_base`."""
    num_layers: int | None
    """Of the base's layers, from below; None: all."""
    base_digest: str
    """Of the base's embedding, as far as it was trained on: tells whether another base bears that name."""
    shape: WindowShape
    note: Mapping[str, Any]
    """Data, splits, command, seed, figures, limits: for people."""


def read_card(folder: Path) -> Card:
    """Read a model's card; cheap, and needs no base.

    Raises:
        ModelFileError: it is not there or is no card.
    """
    file = folder / CARD
    try:
        value = json.loads(file.read_text())
        shape = WindowShape.from_json(value.pop("shape"))
        names = ("name", "version", "base", "num_layers", "base_digest")
        return Card(**{name: value.pop(name) for name in names}, shape=shape, note=value)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelFileError(str(file), str(error)) from error


def read_combination(folder: Path) -> Combination:
    """Read a model's last layer; cheap, and needs no base.

    Raises:
        ModelFileError: it is not there, or was trained on other columns.
    """
    forest, _ = read_forest(folder / COMBINATION)
    if forest.features != COLUMNS or forest.heads != HEADS:
        raise ModelFileError(str(folder / COMBINATION), "it was trained on other columns than this version reads")
    return Combination(forest)


def write_card(
    folder: Path,
    *,
    name: str,
    base: Base,
    num_layers: int | None,
    digest: str,
    shape: WindowShape,
    note: dict[str, Any],
) -> Card:
    """Write the card beside an adapter, which gives the model its version."""
    found = blake2b((folder / ADAPTER).read_bytes(), digest_size=4)
    found.update(json.dumps(shape.to_json()).encode())
    if (folder / COMBINATION).is_file():
        found.update((folder / COMBINATION).read_bytes())
    card = Card(name, found.hexdigest(), base.name, num_layers, digest, shape, note)
    value = {
        "name": card.name,
        "version": card.version,
        "base": card.base,
        "num_layers": card.num_layers,
        "base_digest": card.base_digest,
        "shape": shape.to_json(),
        **note,
    }
    (folder / CARD).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    return card
