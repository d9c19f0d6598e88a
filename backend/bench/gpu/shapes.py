"""Models of random weights, as speed does not depend on their values, and what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sluice.backend.embedded.load import WeightForm
from sluice.backend.embedded.matrix import Matrix
from sluice.backend.embedded.model import LayerWeights, Weights
from sluice.backend.embedded.model_config import ModelConfig


@dataclass(frozen=True, slots=True)
class Shape:
    """A model and what is asked of it."""

    config: ModelConfig
    num_streams: int
    num_prompt_tokens: int
    num_output_tokens: int
    num_prefill_tokens: int


def _llama(layers: int, hidden: int, inner: int, heads: int, kv_heads: int, head_dim: int, words: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=words,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-5,
        rope_theta=500_000.0,
        rope_scaling=None,
        max_model_len=8192 + 256,
        tie_word_embeddings=False,
        has_qk_norm=False,
    )


SHAPES = {
    "8b": Shape(_llama(32, 4096, 14336, 32, 8, 128, 128_256), 64, 256, 256, 8192),
    "1b": Shape(_llama(16, 2048, 8192, 32, 8, 64, 128_256), 64, 256, 256, 8192),
    "tiny": Shape(_llama(2, 128, 256, 4, 2, 32, 512), 4, 16, 8, 128),
}


def random_weights(config: ModelConfig, form: WeightForm) -> Weights:
    """Weights of this shape that keep activations in bounds."""

    def tensor(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, dtype=form.dtype, device=form.device).mul_(columns**-0.5)

    def matrix(rows: int, columns: int) -> Matrix:
        return form.matrix(tensor(rows, columns), None)

    hidden, inner = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    ones = torch.ones(hidden, dtype=form.dtype, device=form.device)
    layers = [
        LayerWeights(
            attention_norm=ones,
            qkv=matrix(q_size + 2 * kv_size, hidden),
            head_norms=None,
            output=matrix(hidden, q_size),
            mlp_norm=ones,
            gate_up=matrix(2 * inner, hidden),
            down=matrix(hidden, inner),
        )
        for _ in range(config.num_layers)
    ]
    head = form.head(tensor(config.vocab_size, hidden), None)
    return Weights(embedding=tensor(config.vocab_size, hidden), layers=layers, norm=ones, head=head)
