"""Reads a model folder's safetensors into the decoder's weights: fused, reordered for the rotation, in one dtype."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sluice.backend.embedded.matrix import DenseMatrix, Int8Matrix, Matrix
from sluice.backend.embedded.model import LayerWeights, Weights
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.rope import pair_up
from sluice.backend.errors import ModelUnavailableError


def load_weights(
    folder: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device, *, is_int8: bool = False
) -> Weights:
    """Read all weights in `dtype`; with `is_int8` the matrices are rounded to 8 bits.

    Raises ModelUnavailableError that names a tensor that is missing or has the wrong shape, or a broken file.
    """
    return _Reader(folder, dtype, device, is_int8).read(config)


class _Reader:
    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device, is_int8: bool) -> None:
        self._folder, self._dtype, self._device = folder, dtype, device
        self._matrix: Callable[..., Matrix] = Int8Matrix.quantize if is_int8 else DenseMatrix
        self._files: dict[str, Any] = {}
        try:
            for path in sorted(folder.glob("*.safetensors")):
                file: Any = safe_open(path, framework="pt")
                self._files.update(dict.fromkeys(file.keys(), file))
        except (SafetensorError, OSError) as error:
            raise ModelUnavailableError(str(folder), f"its weights cannot be read: {error}") from None

    def read(self, config: ModelConfig) -> Weights:
        hidden = config.hidden_size
        table = self._get("model.embed_tokens.weight", (config.vocab_size, hidden))
        return Weights(
            embedding=table,
            layers=[self._layer(f"model.layers.{index}", config) for index in range(config.num_layers)],
            norm=self._get("model.norm.weight", (hidden,)),
            head=self._matrix(
                table if config.tie_word_embeddings else self._get("lm_head.weight", (config.vocab_size, hidden))
            ),
        )

    def _layer(self, prefix: str, config: ModelConfig) -> LayerWeights:
        hidden, inner, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
        q_size, kv_size = config.num_heads * head_dim, config.num_kv_heads * head_dim
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"

        def fused(kind: str, *columns: int) -> torch.Tensor:
            q = pair_up(self._get(f"{attention}.q_proj.{kind}", (q_size, *columns)), head_dim)
            k = pair_up(self._get(f"{attention}.k_proj.{kind}", (kv_size, *columns)), head_dim)
            return torch.cat((q, k, self._get(f"{attention}.v_proj.{kind}", (kv_size, *columns))))

        def head_norm(name: str) -> torch.Tensor | None:
            if not config.has_qk_norm:
                return None
            return pair_up(self._get(f"{attention}.{name}.weight", (head_dim,)).float(), head_dim)

        has_bias = f"{attention}.q_proj.bias" in self._files
        return LayerWeights(
            attention_norm=self._get(f"{prefix}.input_layernorm.weight", (hidden,)),
            qkv=self._matrix(fused("weight", hidden), fused("bias") if has_bias else None),
            q_norm=head_norm("q_norm"),
            k_norm=head_norm("k_norm"),
            output=self._matrix(self._get(f"{attention}.o_proj.weight", (hidden, q_size))),
            mlp_norm=self._get(f"{prefix}.post_attention_layernorm.weight", (hidden,)),
            gate_up=self._matrix(
                torch.cat([self._get(f"{mlp}.{n}_proj.weight", (inner, hidden)) for n in ("gate", "up")])
            ),
            down=self._matrix(self._get(f"{mlp}.down_proj.weight", (hidden, inner))),
        )

    def _get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name not in self._files:
            raise ModelUnavailableError(str(self._folder), f"its weights lack {name}")
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ModelUnavailableError(str(self._folder), f"{name} has shape {tuple(tensor.shape)}, not {shape}")
        return tensor.to(self._device, self._dtype)
