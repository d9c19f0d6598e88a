"""Low-rank adapters (Hu et al., ICLR 2022): small matrices beside frozen ones, folded in where nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class LoraLinear(nn.Module):
    """A frozen linear layer with an adapter beside it: y = W x + scale · B A x.

    Args:
        frozen: the layer.
        rank: of the adapter.
        alpha: scale × rank.
    """

    def __init__(self, frozen: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.frozen = frozen
        self.scale = alpha / rank
        weight = frozen.weight
        self.a = nn.Parameter(torch.empty(rank, frozen.in_features, device=weight.device, dtype=torch.float32))
        self.b = nn.Parameter(torch.zeros(frozen.out_features, rank, device=weight.device, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        # Beside many tokens the sum of the matrices costs nothing, and keeps no activations of its own.
        weight = self.frozen.weight + (self.scale * (self.b @ self.a)).to(x.dtype)
        return functional.linear(x, weight, self.frozen.bias)


_ADAPTED = (
    "query",
    "key",
    "value",
    "dense",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
"""The last part of the name of each layer that gets an adapter: all linear ones, of the architectures in the field."""


def add_adapters(module: nn.Module, rank: int, alpha: float) -> None:
    """Put an adapter beside every linear layer of the base's layers."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in _ADAPTED:
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, LoraLinear(layer, rank, alpha))


def adapters(module: nn.Module) -> dict[str, Tensor]:
    """The adapters' matrices by layer name, `….a` and `….b`; the scale is folded into b."""
    found: dict[str, Tensor] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLinear):
            found[f"{name}.a"] = layer.a.detach()
            found[f"{name}.b"] = layer.b.detach() * layer.scale
    return found


def merge(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fold what `adapters` gave into the frozen layers of a module that has no adapters.

    Raises:
        KeyError: the module has no such layer, or a matrix lacks its other half.
        ValueError: the shapes do not fit.
    """
    for name in sorted(name.removesuffix(".a") for name in tensors if name.endswith(".a")):
        try:
            layer = module.get_submodule(name)
        except AttributeError as error:
            raise KeyError(name) from error
        a, b = tensors[f"{name}.a"].float(), tensors[f"{name}.b"].float()
        weight = layer.weight
        if not isinstance(weight, Tensor) or weight.shape != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1]:
            raise ValueError(f"{name}: an adapter {tuple(b.shape)} × {tuple(a.shape)} does not fit")
        with torch.no_grad():
            weight += (b @ a).to(weight.device, weight.dtype)
