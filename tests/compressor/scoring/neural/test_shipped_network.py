from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.numpy import load_file

from sluice.compressor.scoring.neural.card import read_card, read_combination
from sluice.compressor.scoring.neural.loading import default_folder
from sluice.compressor.scoring.neural.types import Window

MAX_BYTES = 20_000_000


def test_the_network_that_comes_along_is_small_and_whole() -> None:
    folder = default_folder()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "adapter.safetensors", "card.json", "combination.npz",
    }  # fmt: skip
    card = read_card(folder)
    tensors = load_file(folder / "adapter.safetensors")
    adapted = {name.removesuffix(".a") for name in tensors if name.endswith(".a")}
    assert len(adapted) == 7 * (card.num_layers or 0)
    assert all(f"{name}.b" in tensors for name in adapted)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert len(read_combination(folder).forest.head_of_tree) == 480


@pytest.mark.engine
def test_the_network_that_comes_along_reads_lines() -> None:
    pytest.importorskip("transformers")
    from sluice.compressor.scoring.neural.model_file import read_network
    from sluice.compressor.scoring.neural.torch_model import TorchModel
    from sluice.eval.scorer.bases import SMOLLM2, base_named

    folder = default_folder()
    base = base_named(SMOLLM2)
    card = read_card(folder)
    network = read_network(folder, folders={base.name: base.folder})
    tokens = json.loads((base.folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert tokens["Ċ"] == card.shape.end_of_line[0]
    ids = np.random.default_rng(0).integers(20, 40_000, 40).astype(np.int32)
    ids[[19, 29, 39]] = card.shape.end_of_line[0]
    (logits,) = TorchModel(card, network).logits([Window(ids, np.array([19, 29, 39], np.int32), 10, 0, 0)])
    assert logits.shape == (3, 2)
    assert (logits < 0).all()  # noise is needed by nobody
