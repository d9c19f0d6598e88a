"""Reads a model folder's safetensors into the decoder's weights: fused, reordered for the rotation, in one dtype."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sluice.backend.embedded.matrix import Matrix, MatrixMaker, dense, eight_bits, four_bits
from sluice.backend.embedded.model import LayerWeights, Weights
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.ops import HeadNorms
from sluice.backend.embedded.rope import pair_up
from sluice.backend.errors import ModelUnavailableError

_LAYER = re.compile(r"model\.layers\.\d+\.(?!self_attn\.rotary_emb\.inv_freq$)")
"""Names of the layers' weights; the frequencies of the rotation, which old files have, follow from the config."""


@dataclass(frozen=True, slots=True)
class WeightForm:
    """How weights are kept, and where."""

    dtype: torch.dtype
    """Of embedding and norms, of dense matrices, and of what the packed ones give."""
    device: torch.device
    matrix: MatrixMaker = dense
    head: MatrixMaker = dense
    """The output layer's: every token depends on it most."""

    @classmethod
    def named(cls, name: str, device: torch.device) -> WeightForm:
        """By what users call it: a float dtype of torch, `int8` or `int4`."""
        if name == "int8":
            return cls(torch.bfloat16, device, eight_bits, eight_bits)
        if name == "int4":
            return cls(torch.bfloat16, device, four_bits, eight_bits)
        dtype: torch.dtype = getattr(torch, name)
        return cls(dtype, device)


def load_weights(folder: Path, config: ModelConfig, form: WeightForm) -> Weights:
    """Read all weights.

    Raises ModelUnavailableError that names a tensor that is missing or has the wrong shape, or a broken file.
    """
    return _Reader(folder, form).read(config)


class _Reader:
    def __init__(self, folder: Path, form: WeightForm) -> None:
        self._folder, self._form = folder, form
        self._files: dict[str, Any] = {}
        self._read: set[str] = set()
        try:
            for path in sorted(folder.glob("*.safetensors")):
                file: Any = safe_open(path, framework="pt")
                self._files.update(dict.fromkeys(file.keys(), file))
        except (SafetensorError, OSError) as error:
            raise ModelUnavailableError(str(folder), f"its weights cannot be read: {error}") from None

    def read(self, config: ModelConfig) -> Weights:
        hidden = config.hidden_size
        table = self._get("model.embed_tokens.weight", (config.vocab_size, hidden))
        weights = Weights(
            embedding=table,
            layers=[self._layer(f"model.layers.{index}", config) for index in range(config.num_layers)],
            norm=self._get("model.norm.weight", (hidden,)),
            head=self._form.head(
                table if config.tie_word_embeddings else self._get("lm_head.weight", (config.vocab_size, hidden)), None
            ),
        )
        # A bias or a norm that is left over would make another model of it.
        odd = [name for name in self._files.keys() - self._read if _LAYER.match(name)]
        if odd:
            raise ModelUnavailableError(str(self._folder), f"its weights have {min(odd)}, which is not served")
        return weights

    def _layer(self, prefix: str, config: ModelConfig) -> LayerWeights:
        hidden, inner, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
        q_size, kv_size = config.num_heads * head_dim, config.num_kv_heads * head_dim
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"

        def fused(kind: str, *columns: int) -> torch.Tensor:
            q = pair_up(self._get(f"{attention}.q_proj.{kind}", (q_size, *columns)), head_dim)
            k = pair_up(self._get(f"{attention}.k_proj.{kind}", (kv_size, *columns)), head_dim)
            return torch.cat((q, k, self._get(f"{attention}.v_proj.{kind}", (kv_size, *columns))))

        def head_norm(name: str) -> torch.Tensor:
            return pair_up(self._get(f"{attention}.{name}.weight", (head_dim,)).float(), head_dim)

        has_bias = f"{attention}.q_proj.bias" in self._files
        return LayerWeights(
            attention_norm=self._get(f"{prefix}.input_layernorm.weight", (hidden,)),
            qkv=self._matrix(fused("weight", hidden), fused("bias") if has_bias else None),
            head_norms=HeadNorms(head_norm("q_norm"), head_norm("k_norm")) if config.has_qk_norm else None,
            output=self._matrix(self._get(f"{attention}.o_proj.weight", (hidden, q_size))),
            mlp_norm=self._get(f"{prefix}.post_attention_layernorm.weight", (hidden,)),
            gate_up=self._matrix(
                torch.cat([self._get(f"{mlp}.{n}_proj.weight", (inner, hidden)) for n in ("gate", "up")])
            ),
            down=self._matrix(self._get(f"{mlp}.down_proj.weight", (hidden, inner))),
        )

    def _matrix(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
        return self._form.matrix(weight, bias)

    def _get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name not in self._files:
            raise ModelUnavailableError(str(self._folder), f"its weights lack {name}")
        self._read.add(name)
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ModelUnavailableError(str(self._folder), f"{name} has shape {tuple(tensor.shape)}, not {shape}")
        return tensor.to(self._form.device, self._form.dtype)
