"""Needs torch and transformers, and no weights: networks are small and random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedModel

from sluice.compressor.scoring.neural.card import Card
from sluice.compressor.scoring.neural.layers import is_known
from sluice.compressor.scoring.neural.network import LineNetwork
from sluice.compressor.scoring.neural.packed_model import Form, PackedModel
from sluice.compressor.scoring.neural.torch_model import TorchModel
from sluice.compressor.scoring.neural.types import Window
from tests.compressor.scoring.neural.doubles import SHAPE

pytestmark = pytest.mark.engine


def network(architecture: str, **changes: object) -> LineNetwork:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 99,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "initializer_range": 0.2,
        **changes,
    }
    base: PreTrainedModel
    if architecture == "llama":
        base = LlamaModel(LlamaConfig(num_key_value_heads=2, **sizes))  # type: ignore[arg-type]
    else:
        base = BertModel(BertConfig(**sizes), add_pooling_layer=False)  # type: ignore[arg-type]
    return LineNetwork(base, 64).eval()


def windows() -> list[Window]:
    rng = np.random.default_rng(0)
    context = rng.integers(0, 99, 60)
    made = []
    for num_tokens, is_shared in ((80, True), (120, False), (100, True), (64, True), (160, False), (160, True)):
        ids = rng.integers(0, 99, num_tokens).astype(np.int32)
        if is_shared:
            ids[:60] = context
        ends = np.unique(rng.integers(num_tokens // 2, num_tokens, 5)).astype(np.int32)
        made.append(Window(ids, ends, num_tokens // 2, 0, 0))
    return made


CARD = Card("small", "1", "none", None, "", SHAPE, {})


@pytest.mark.parametrize("architecture", ["llama", "bert"])
@pytest.mark.parametrize(("form", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1), ("int8", 0.1)])
def test_packed_gives_what_padded_gives(architecture: str, form: Form, tolerance: float) -> None:
    plain = network(architecture)
    assert is_known(plain)
    expected = TorchModel(CARD, plain).logits(windows())
    found = PackedModel(CARD, plain, form=form).logits(windows())
    assert [one.shape for one in found] == [one.shape for one in expected]
    scale = np.abs(np.concatenate(expected)).max()
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= tolerance * scale


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_it_computes_where_it_is_told_wherever_the_network_lies(architecture: str) -> None:
    """On a GPU, where there is one, as models are loaded there."""
    has_gpu = torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    expected = np.concatenate(TorchModel(CARD, network(architecture)).logits(windows()))
    for plain in (network(architecture), network(architecture).to(device)):
        model = PackedModel(CARD, plain, device=device, form="bfloat16", is_compiled=has_gpu)
        found = np.concatenate(model.logits(windows()))
        assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_a_window_does_not_depend_on_those_beside_it(architecture: str) -> None:
    model = PackedModel(CARD, network(architecture), form="int8")
    together = model.logits(windows())
    for one, alone in zip(together, windows(), strict=True):
        assert np.abs(one - model.logits([alone])[0]).max() < 1e-4


def test_other_bases_are_not_taken_for_what_they_are_not() -> None:
    assert not is_known(network("llama", hidden_act="gelu"))
    assert not is_known(network("llama", attention_bias=True))
    assert not is_known(network("bert", hidden_act="relu"))


def test_no_windows_are_fine(tmp_path: Path) -> None:
    assert PackedModel(CARD, network("bert")).logits([]) == []


def test_a_window_that_would_make_a_gpu_fail_is_refused_before() -> None:
    model = PackedModel(CARD, network("bert"))
    end = np.array([2], np.int32)
    for token_id in (-1, 99):
        with pytest.raises(ValueError, match="none of the 99 tokens"):
            model.logits([Window(np.array([1, token_id, 2], np.int32), end, 0, 0, 0)])
    with pytest.raises(ValueError, match=f"longer than {SHAPE.max_tokens} tokens"):
        model.logits([Window(np.ones(SHAPE.max_tokens + 1, np.int32), end, 0, 0, 0)])
