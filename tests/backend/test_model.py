from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from sluice.backend.embedded.attention import Span, make_attention
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.load import WeightForm, load_weights
from sluice.backend.embedded.model import Decoder
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.errors import ModelUnavailableError

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "llama-3": LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "llama-linear": LlamaConfig(**SHAPE, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    "llama-yarn": LlamaConfig(**SHAPE, rope_parameters=YARN),
    "llama-yarn-by-hand": LlamaConfig(
        **SHAPE,
        rope_parameters={**YARN, "attention_factor": 1.5, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    ),
    "qwen3-yarn": Qwen3Config(**SHAPE, head_dim=16, rope_parameters=YARN),
    "qwen2-tied": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "mistral-theta": MistralConfig(
        **SHAPE, sliding_window=None, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    ),
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "mistral": MistralConfig(**SHAPE, head_dim=16, sliding_window=None),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
}


def logits_of(folder: Path, token_ids: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """All logits by our decoder, computed in chunks of these sizes."""
    config = ModelConfig.read(folder)
    device = torch.device("cpu")
    cache = KVCache(config, 16, 16, device)
    decoder = Decoder(config, load_weights(folder, config, WeightForm(torch.float32, device)), cache)
    attention, out, first = make_attention(cache), [], 0
    table = [3, 4, 9, 1, 2, 12, 13, 14, 5]
    for size in sizes:
        positions = torch.arange(first, first + size)
        slots = torch.tensor(table)[positions // 16] * 16 + positions % 16
        spans = [Span(0, size, first + size, table)]
        with torch.inference_mode():
            out.append(
                decoder.forward(token_ids[positions], positions, slots, attention.begin(spans), torch.arange(size))
            )
        first += size
    return torch.cat(out)


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = AutoModelForCausalLM.from_config(MODELS[name]).eval()
    for parameter in reference.parameters():  # norms and biases start as ones and zeros, which would hide mistakes
        parameter.data += torch.randn_like(parameter) * 0.1
    reference.save_pretrained(tmp_path)
    token_ids = torch.randint(2, 97, (120,))
    with torch.inference_mode():
        expected = reference(token_ids[None]).logits[0]
    for sizes in ([120], [50, 1, 1, 3, 65]):
        torch.testing.assert_close(logits_of(tmp_path, token_ids, sizes), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type 'longrope'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"vocab_size": None}, "NoneType"),
    ],
)
def test_what_would_be_computed_wrong_is_refused(
    tiny_folder: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelUnavailableError, match=says):
        ModelConfig.read(tmp_path)


def test_a_sliding_window_bounds_the_length(tiny_folder: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "mistral", "sliding_window": 100}))
    assert ModelConfig.read(tmp_path).max_model_len == 100


@pytest.mark.parametrize("damage", ["missing", "shape", "extra"])
def test_a_tensor_that_is_missing_misshapen_or_unknown_is_named(tiny_folder: Path, tmp_path: Path, damage: str) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    tensors = load_file(tiny_folder / "model.safetensors")
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        name = "model.layers.1.mlp.down_proj.bias"
        tensors[name] = torch.zeros(64)
    else:
        tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    config = ModelConfig.read(tiny_folder)
    with pytest.raises(ModelUnavailableError, match=name):
        load_weights(tmp_path, config, WeightForm(torch.float32, torch.device("cpu")))
