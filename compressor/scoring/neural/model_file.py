"""A trained model on disk: a folder with what was added to a base, how windows are laid out, and a card.

`card.json` (shape, base, figures), `adapter.safetensors` (adapters, head), `combination.npz` (the last layer's trees).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.forest import read_forest
from sluice.compressor.scoring.neural.bases import Base, find_base
from sluice.compressor.scoring.neural.combine import COLUMNS, Combination
from sluice.compressor.scoring.neural.errors import MissingBaseError
from sluice.compressor.scoring.neural.lora import adapters, merge
from sluice.compressor.scoring.neural.network import LineNetwork, load_network
from sluice.compressor.scoring.neural.windows import WindowShape

_CARD, _ADAPTER, COMBINATION = "card.json", "adapter.safetensors", "combination.npz"


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model without its weights."""

    name: str
    version: str
    """A digest of the adapter and the shape."""
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
    file = folder / _CARD
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


def read_network(
    folder: Path,
    *,
    folders: Mapping[str, Path] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> LineNetwork:
    """Load base and adapter, folded into one; in evaluation mode.

    Args:
        folder: the model's.
        folders: see `find_base`.
        dtype: of the base.
        device: to put it on.

    Raises:
        MissingBaseError: the base is not installed, or is another one.
        ModelFileError: the adapter is not there or does not fit.
    """
    card, file = read_card(folder), folder / _ADAPTER
    network = load_network(find_base(card.base, folders), num_layers=card.num_layers)
    if base_digest(network) != card.base_digest:
        raise MissingBaseError(card.base, "these are other weights than the adapter was trained on")
    try:
        tensors = load_file(file)
        own = {name: tensors.pop(name).float() for name in list(tensors) if name.startswith(("norm.", "head."))}
        merge(network, tensors)
        network.load_state_dict(own, strict=False)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelFileError(str(file), str(error)) from error
    network.base.to(dtype)
    return network.to(device).eval().requires_grad_(False)


def write_adapter(folder: Path, network: LineNetwork) -> None:
    """Write what was trained, as float16 (the head as float32)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in adapters(network).items()}
    for name, tensor in network.state_dict().items():
        if name.startswith(("norm.", "head.")):
            tensors[name] = tensor.to("cpu", torch.float32).contiguous()
    save_file(tensors, folder / _ADAPTER)


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
    found = blake2b((folder / _ADAPTER).read_bytes(), digest_size=4)
    found.update(json.dumps(shape.to_json()).encode())
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
    (folder / _CARD).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    return card


def base_digest(network: LineNetwork) -> str:
    """Of a thousand numbers of a base's embedding: tells whether other weights bear the same name."""
    base: Any = network.base
    table = base.get_input_embeddings().weight
    sample = table.detach().float().cpu().flatten()[:: max(table.numel() // 1000, 1)]
    return blake2b(np.round(sample.numpy() * 1e3).astype("<i4").tobytes(), digest_size=8).hexdigest()
