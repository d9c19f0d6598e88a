"""Networks of the sizes that are measured, with random weights: speed does not depend on their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from sluice.compressor.scoring.neural.bases import MINILM
from sluice.compressor.scoring.neural.card import Card
from sluice.compressor.scoring.neural.network import LineNetwork
from sluice.compressor.scoring.neural.types import Window
from sluice.compressor.scoring.neural.windows import WindowShape

SMOLLM2 = "SmolLM2-135M"
_WINDOW_TOKENS = 1024
_NUM_LINE_TOKENS = 12
"""A line of code has about so many."""


def random_network(name: str, device: torch.device) -> LineNetwork:
    """A network of that size, float32."""
    torch.manual_seed(0)
    with device, torch.no_grad():
        base = _BASES[name]()
        return LineNetwork(base, int(base.config.hidden_size)).eval().requires_grad_(False)


def card_of(name: str, window_tokens: int) -> Card:
    """A card for a network that was never trained."""
    shape = WindowShape(window_tokens, 16, 16, 32, 16, 16, 16, (), (), (0,))
    return Card(name, "random", name, None, "", shape, {})


def max_window_tokens(name: str) -> int:
    """Longest window that a network of this name reads, as far as it is measured."""
    return 512 if name == MINILM else _WINDOW_TOKENS


def random_window(rng: np.random.Generator, num_tokens: int, beginning: np.ndarray[Any, Any] | None = None) -> Window:
    """A window of lines.

    Args:
        rng: makes its tokens.
        num_tokens: of the window.
        beginning: its first tokens, where it shares them with others.
    """
    token_ids = rng.integers(0, 30_000, num_tokens).astype(np.int32)
    num_context = num_tokens // 4
    if beginning is not None:
        num_context = len(beginning)
        token_ids[:num_context] = beginning
    line_ends = np.arange(num_context + _NUM_LINE_TOKENS - 1, num_tokens, _NUM_LINE_TOKENS, dtype=np.int32)
    return Window(token_ids, line_ends, num_context, 0, 0)


def _minilm() -> nn.Module:
    from transformers import BertConfig, BertModel

    config: Any = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30_522
    )
    return BertModel(config, add_pooling_layer=False)


def _smollm2() -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    config: Any = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        use_cache=False,
    )
    return LlamaModel(config)


_BASES: Mapping[str, Callable[[], Any]] = {MINILM: _minilm, SMOLLM2: _smollm2}
NAMES = tuple(_BASES)
