"""Whole models on disk: small, random, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from sluice.compressor.scoring import ModelFileError
from sluice.compressor.scoring.neural.card import ADAPTER, CARD, read_card
from sluice.compressor.scoring.neural.errors import MissingBaseError
from sluice.compressor.scoring.neural.export import export_base
from sluice.compressor.scoring.neural.head import read_head
from sluice.compressor.scoring.neural.loading import load_model
from sluice.compressor.scoring.neural.model_file import read_network
from sluice.compressor.scoring.neural.torch_model import TorchModel
from sluice.compressor.scoring.neural.types import Window
from tests.compressor.scoring.neural.doubles import SHAPE
from tests.compressor.scoring.neural.tiny import write_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt, on the same base."""
    for name in (CARD, ADAPTER):
        (tmp_path / name).write_bytes((written / name).read_bytes())
    return tmp_path


WINDOWS = [
    Window(np.arange(20, 20 + num, dtype=np.int32), np.array([num // 2, num - 1], np.int32), num // 2, 0, 0)
    for num in (30, 44)
]


def test_on_a_cpu_a_known_architecture_is_computed_packed_in_8_bits(written: Path) -> None:
    model = load_model(written, device="cpu")
    expected = TorchModel(read_card(written), read_network(written)).logits(WINDOWS)
    scale = np.abs(np.concatenate(expected)).max()
    for one, other in zip(model.logits(WINDOWS), expected, strict=True):
        assert np.abs(one - other).max() <= 0.1 * scale
    assert (model.name, model.max_window_tokens) == ("tiny", SHAPE.max_tokens)


def test_the_head_alone_gives_what_the_network_gives(written: Path) -> None:
    states = torch.randn(5, 32)
    network = read_network(written)
    with torch.no_grad():
        expected = network.head(network.norm(states)).numpy()
    assert np.allclose(read_head(written).logits(states.numpy()), expected, atol=1e-5)


def test_other_weights_under_the_same_name_are_refused(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "base_digest": "0" * 16}))
    with pytest.raises(MissingBaseError, match="other weights"):
        read_network(folder)


@pytest.mark.parametrize("data", [None, b"", b"no safetensors"])
def test_a_broken_adapter_is_named(folder: Path, data: bytes | None) -> None:
    (folder / ADAPTER).unlink()
    if data is not None:
        (folder / ADAPTER).write_bytes(data)
    for read in (read_network, read_head):
        with pytest.raises(ModelFileError, match=r"adapter\.safetensors"):
            read(folder)


def test_what_is_exported_holds_the_adapter_and_the_tokenizer(written: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    export_base(written, tmp_path / "base")
    exported = AutoModel.from_pretrained(tmp_path / "base", local_files_only=True)
    ours = dict(read_network(written).base.named_parameters())
    for name, weight in exported.named_parameters():
        assert name.startswith("pooler") or torch.equal(weight, ours[name])
    assert (tmp_path / "base" / "tokenizer.json").is_file()
