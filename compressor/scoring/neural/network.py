"""The network: a pretrained base, and a head that reads each line at its last token.

A causal base reads the lines above, one that reads both ways the lines below, too. Knows no conversation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.bases import Base
from sluice.compressor.scoring.neural.errors import MissingBaseError

READ_BOTH_WAYS = frozenset({"bert", "modernbert", "mpnet", "roberta", "xlm-roberta"})
"""Architectures whose tokens read what is below them, too."""


class LineNetwork(nn.Module):
    """Base and head.

    Args:
        base: gives (batch, tokens, hidden) as `last_hidden_state`.
        hidden_size: of the base.
    """

    def __init__(self, base: nn.Module, hidden_size: int) -> None:
        super().__init__()
        self.base = base
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, len(HEADS))

    @property
    def architecture(self) -> str:
        """The base's, as its configuration names it."""
        config: Any = self.base.config
        return str(config.model_type)

    @property
    def is_causal(self) -> bool:
        """Whether a token reads only what is above it."""
        return self.architecture not in READ_BOTH_WAYS

    def forward(self, token_ids: Tensor, num_tokens: Tensor, rows: Tensor, line_ends: Tensor) -> Tensor:
        """(lines, `HEADS`), float32.

        Args:
            token_ids: (windows, tokens) int64, padded behind.
            num_tokens: (windows,) int64: without the padding.
            rows: (lines,) int64: which window each line is in.
            line_ends: (lines,) int64: where in it the line ends.
        """
        # Padding stands behind: where a token reads only what is above it, there is nothing to mask.
        mask = None
        if not self.is_causal:
            mask = torch.arange(token_ids.shape[1], device=token_ids.device) < num_tokens[:, None]
        hidden = self.base(input_ids=token_ids, attention_mask=mask).last_hidden_state
        return self.head(self.norm(hidden[rows, line_ends].float())).float()  # type: ignore[no-any-return]


def load_network(base: Base, *, num_layers: int | None = None) -> LineNetwork:
    """Read a base's weights, as float32, with a fresh head.

    Args:
        base: where they are.
        num_layers: how many of its layers are kept, from below; None: all.

    Raises:
        MissingBaseError: they cannot be read.
    """
    from transformers import AutoModel

    try:
        module = AutoModel.from_pretrained(
            base.folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise MissingBaseError(base.name, str(error)) from error
    if module.config.model_type == "bert":
        module.pooler = None
    else:
        module.config.use_cache = False
        _fuse_norms(module)
    if num_layers is not None:
        _keep_layers(module, num_layers)
    return LineNetwork(module, int(module.config.hidden_size))


def _fuse_norms(module: nn.Module) -> None:
    """Put torch's one kernel where Llama's norm takes five: a fifth of the time goes there otherwise."""
    for name, norm in list(module.named_modules()):
        if type(norm).__name__ == "LlamaRMSNorm":
            weight, epsilon = norm.weight, float(norm.variance_epsilon)
            fused = nn.RMSNorm(weight.shape[-1], epsilon)
            fused.weight = weight
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, fused)


def _keep_layers(module: Any, num_layers: int) -> None:
    holder = module.encoder if hasattr(module, "encoder") else module
    name = "layer" if hasattr(holder, "layer") else "layers"
    setattr(holder, name, nn.ModuleList(list(getattr(holder, name))[:num_layers]))
    module.config.num_hidden_layers = num_layers
