"""A trained model's weights on disk: what was added to a base, as `card.py` has it, folded into that base."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.neural.bases import find_base
from sluice.compressor.scoring.neural.card import ADAPTER, read_card
from sluice.compressor.scoring.neural.errors import MissingBaseError
from sluice.compressor.scoring.neural.lora import adapters, merge
from sluice.compressor.scoring.neural.network import LineNetwork, load_network


def read_network(folder: Path, *, folders: Mapping[str, Path] | None = None) -> LineNetwork:
    """Load base and adapter, folded into one: on the CPU, as float32, in evaluation mode.

    Args:
        folder: the model's.
        folders: see `find_base`.

    Raises:
        MissingBaseError: the base is not installed, or is another one.
        ModelFileError: the adapter is not there or does not fit.
    """
    card, file = read_card(folder), folder / ADAPTER
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
    return network.eval().requires_grad_(False)


def write_adapter(folder: Path, network: LineNetwork) -> None:
    """Write what was trained, as float16 (the head as float32)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in adapters(network).items()}
    for name, tensor in network.state_dict().items():
        if name.startswith(("norm.", "head.")):
            tensors[name] = tensor.to("cpu", torch.float32).contiguous()
    save_file(tensors, folder / ADAPTER)


def base_digest(network: LineNetwork) -> str:
    """Of a thousand numbers of a base's embedding: tells whether other weights bear the same name."""
    base: Any = network.base
    table = base.get_input_embeddings().weight
    sample = table.detach().float().cpu().flatten()[:: max(table.numel() // 1000, 1)]
    return blake2b(np.round(sample.numpy() * 1e3).astype("<i4").tobytes(), digest_size=8).hexdigest()
