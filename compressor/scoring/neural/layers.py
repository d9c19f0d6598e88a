"""The layers of the bases that are computed packed: BERT (Devlin et al., 2019) and Llama (Touvron et al., 2023).

Each layer in two halves, before and after its attention, so that the end of one and the beginning of the next make one
function, which a compiler can fuse. Plain functions of tensors: tokens lie end to end, (tokens, features).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from sluice.compressor.scoring.neural.network import LineNetwork


class Quantized(NamedTuple):
    """A matrix in 8 bits, with a scale for each output."""

    weight: Tensor
    """(in, out), int8."""
    scales: Tensor
    """(out,), float32."""


class Gate(NamedTuple):
    """Llama's gate and up matrices, for the kernel that multiplies with both at once."""

    weight: Tensor
    """(2 · width, in)"""


Matrix: TypeAlias = Tensor | Quantized
"""(out, in) where it is a tensor."""


class Llama(NamedTuple):
    """One layer's weights."""

    norm: Tensor
    qkv: Matrix
    out: Matrix
    mlp_norm: Tensor
    gate_up: Matrix | Gate
    down: Matrix


class Bert(NamedTuple):
    """One layer's weights."""

    qkv: Matrix
    qkv_bias: Tensor
    out: Matrix
    out_bias: Tensor
    norm: Tensor
    norm_bias: Tensor
    up: Matrix
    up_bias: Tensor
    down: Matrix
    down_bias: Tensor
    mlp_norm: Tensor
    mlp_norm_bias: Tensor


Layer: TypeAlias = Llama | Bert


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the layers of a base have in common."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float


class Heads(NamedTuple):
    """Queries, keys and values, (tokens, heads, head_dim)."""

    query: Tensor
    key: Tensor
    value: Tensor


def quantized(weight: Tensor) -> Quantized:
    """Round a matrix (out, in) to 8 bits, each output by itself."""
    scales = weight.float().abs().amax(dim=1).clamp(min=1e-8) / 127
    rounded = (weight.float() / scales[:, None]).round().to(torch.int8)
    return Quantized(rounded.t().contiguous(), scales)


def times(x: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    """(tokens, in) → (tokens, out). With an 8-bit matrix each token is rounded to 8 bits, by itself."""
    if isinstance(matrix, Tensor):
        return functional.linear(x, matrix, bias)
    scale = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / 127
    product = torch._int_mm((x / scale).round().to(torch.int8), matrix.weight)
    out = product.float().mul_(scale).mul_(matrix.scales)
    return out if bias is None else out.add_(bias)


def before_attention(x: Tensor, layer: Layer, rotation: tuple[Tensor, Tensor] | None, sizes: Sizes) -> Heads:
    """What a layer's attention is over.

    Args:
        x: (tokens, hidden).
        layer: its weights.
        rotation: cosines and sines, (tokens, head_dim); None where positions are in the embedding.
        sizes: of the base.
    """
    if isinstance(layer, Llama):
        heads = times(_rms_norm(x, layer.norm, sizes.eps), layer.qkv)
    else:
        heads = times(x, layer.qkv, layer.qkv_bias)
    split = [sizes.num_heads, sizes.num_kv_heads, sizes.num_kv_heads]
    query, key, value = torch.split(heads.view(len(x), -1, sizes.head_dim), split, dim=1)
    if rotation is not None:
        query, key = _rotated(query, rotation), _rotated(key, rotation)
    return Heads(query, key, value)


def after_attention(x: Tensor, attended: Tensor, layer: Layer, sizes: Sizes) -> Tensor:
    """What a layer gives, (tokens, hidden).

    Args:
        x: what it was given.
        attended: what its attention gave, (tokens, heads · head_dim).
        layer: its weights.
        sizes: of the base.
    """
    if isinstance(layer, Llama):
        x = x + times(attended, layer.out)
        return x + times(_let_through(_rms_norm(x, layer.mlp_norm, sizes.eps), layer.gate_up), layer.down)
    shape = (sizes.hidden_size,)
    x = x + times(attended, layer.out, layer.out_bias)
    x = functional.layer_norm(x, shape, layer.norm, layer.norm_bias, sizes.eps)
    wide = functional.gelu(times(x, layer.up, layer.up_bias))
    x = x + times(wide, layer.down, layer.down_bias)
    return functional.layer_norm(x, shape, layer.mlp_norm, layer.mlp_norm_bias, sizes.eps)


def is_known(network: LineNetwork) -> bool:
    """Whether a network's base is one of those that are computed here."""
    config: Any = network.base.config
    if network.architecture == "llama":
        return config.hidden_act == "silu" and not config.attention_bias and not config.mlp_bias
    return network.architecture == "bert" and config.hidden_act == "gelu" and not config.is_decoder


def sizes_of(network: LineNetwork) -> Sizes:
    """The sizes of a known network's base."""
    config: Any = network.base.config
    is_llama = network.architecture == "llama"
    num_heads = config.num_attention_heads
    return Sizes(
        config.hidden_size,
        config.intermediate_size,
        num_heads,
        config.num_key_value_heads if is_llama else num_heads,
        (getattr(config, "head_dim", None) if is_llama else None) or config.hidden_size // num_heads,
        config.rms_norm_eps if is_llama else config.layer_norm_eps,
    )


def layers_of(network: LineNetwork) -> list[Layer]:
    """The weights of a known network's layers, those that are multiplied with the same as one."""
    base: Any = network.base
    if network.architecture == "llama":
        return [
            Llama(
                layer.input_layernorm.weight,
                _joined(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                layer.self_attn.o_proj.weight,
                layer.post_attention_layernorm.weight,
                _joined(layer.mlp.gate_proj, layer.mlp.up_proj),
                layer.mlp.down_proj.weight,
            )
            for layer in base.layers
        ]
    found: list[Layer] = []
    for layer in base.encoder.layer:
        attention, out, mlp = layer.attention.self, layer.attention.output, layer.output
        parts = (attention.query, attention.key, attention.value)
        found.append(
            Bert(
                _joined(*parts),
                torch.cat([part.bias for part in parts]),
                out.dense.weight,
                out.dense.bias,
                out.LayerNorm.weight,
                out.LayerNorm.bias,
                layer.intermediate.dense.weight,
                layer.intermediate.dense.bias,
                mlp.dense.weight,
                mlp.dense.bias,
                mlp.LayerNorm.weight,
                mlp.LayerNorm.bias,
            )
        )
    return found


def _let_through(x: Tensor, gate_up: Matrix | Gate) -> Tensor:
    if isinstance(gate_up, Gate):
        from sluice.compressor.scoring.neural.gated_kernel import gated

        return gated(x, gate_up.weight)
    gate, up = times(x, gate_up).chunk(2, dim=1)
    return functional.silu(gate) * up


def _joined(*parts: Any) -> Tensor:
    return torch.cat([part.weight for part in parts])


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype)


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (part[:, None] for part in rotation)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin
