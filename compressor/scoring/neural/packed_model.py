"""A network computed without padding: windows lie end to end, matrices that share an input are one.

In bfloat16 and compiled on a GPU, in 8 bits or float32 on a CPU. Gives what `TorchModel` gives, within rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sluice.compressor.scoring.neural.attention import Sequences, attend
from sluice.compressor.scoring.neural.card import Card
from sluice.compressor.scoring.neural.layers import (
    Gate,
    Heads,
    Layer,
    Llama,
    Matrix,
    Quantized,
    Sizes,
    after_attention,
    before_attention,
    layers_of,
    quantized,
    sizes_of,
)
from sluice.compressor.scoring.neural.network import LineNetwork
from sluice.compressor.scoring.neural.packing import Layout, pack
from sluice.compressor.scoring.neural.types import Floats, Window

logger = logging.getLogger(__name__)

Form = Literal["bfloat16", "float32", "int8"]
"""What matrices are held in; with int8 the rest is float32."""


class PackedModel:
    """Computes windows end to end (see `LineModel`).

    Args:
        card: the model's.
        network: as `read_network` gave it, of a base that `layers.is_known`; it is not needed afterwards.
        device: to compute on.
        form: of the matrices.
        is_compiled: whether the layers are compiled, which takes seconds at the first windows.
    """

    def __init__(
        self,
        card: Card,
        network: LineNetwork,
        *,
        device: str = "cpu",
        form: Form = "float32",
        is_compiled: bool = False,
    ) -> None:
        self.name, self.version = card.name, card.version
        self.max_window_tokens = card.shape.max_tokens
        self.is_causal = network.is_causal
        self.sizes = sizes_of(network)
        self._device = torch.device(device)
        dtype = torch.bfloat16 if form == "bfloat16" else torch.float32
        self._layers = [
            _placed(layer, self._device, dtype, is_quantized=form == "int8") for layer in layers_of(network)
        ]
        if self._device.type == "cuda":
            self._layers = [_gated(layer) for layer in self._layers]
        base: Any = network.base
        self._is_llama = network.architecture == "llama"
        if self._is_llama:
            self._embedding = base.embed_tokens.weight.to(self._device, dtype)
            self._norm = base.norm.weight.to(self._device, dtype)
            origin = base.embed_tokens.weight.device
            places = torch.arange(self.max_window_tokens, device=origin)[None]
            table = base.rotary_emb(torch.zeros(1, device=origin), places)
            self._rotations = tuple(part[0].to(self._device, dtype) for part in table)
        else:
            embeddings = base.embeddings
            self._embedding = embeddings.word_embeddings.weight.to(self._device, dtype)
            # All windows are of type 0, so that the type's embedding is a part of each position's.
            places = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
            self._place = places[: self.max_window_tokens].to(self._device, dtype)
            self._embedding_norm = [
                part.to(self._device, dtype) for part in (embeddings.LayerNorm.weight, embeddings.LayerNorm.bias)
            ]
        self._line_norm = network.norm.to(self._device).float()
        self._head = network.head.to(self._device).float()
        self._between = torch.compile(_between) if is_compiled else _between
        self._is_tried = not is_compiled

    @property
    def num_layers(self) -> int:
        """Of the network."""
        return len(self._layers)

    def logits(self, windows: Sequence[Window]) -> list[Floats]:
        """See `LineModel`."""
        if not windows:
            return []
        layout = pack(windows, is_shared=self.is_causal)
        # Checked here: on a GPU one wrong number makes all that comes after it fail, too.
        if not 0 <= layout.token_ids.min() <= layout.token_ids.max() < len(self._embedding):
            raise ValueError(f"a window holds a token id of none of the {len(self._embedding)} tokens")
        if layout.places.max() >= self.max_window_tokens:
            raise ValueError(f"a window is longer than {self.max_window_tokens} tokens")
        with torch.no_grad():
            found = self._computed(layout).cpu().numpy()
        stops = np.cumsum([len(window.line_ends) for window in windows])[:-1]
        return np.split(found, stops)

    def _computed(self, layout: Layout) -> Tensor:
        """As `_forward`; where layers cannot be compiled (no compiler, perhaps), they are computed as they are."""
        try:
            found = self._forward(layout)
        except Exception as error:
            if self._is_tried:
                raise
            logger.warning("layers are not compiled: %s", str(error).partition("\n")[0])
            self._between = _between
            found = self._forward(layout)
        self._is_tried = True
        return found

    def _forward(self, layout: Layout) -> Tensor:
        """(lines, heads), float32."""
        token_ids, places, bounds, key_bounds, line_rows = (
            torch.from_numpy(part).to(self._device, non_blocking=True)
            for part in (layout.token_ids, layout.places, layout.bounds, layout.key_bounds, layout.line_rows)
        )
        key_rows = None if layout.key_rows is None else torch.from_numpy(layout.key_rows).to(self._device)
        sequences = Sequences(bounds, key_rows, key_bounds, self.max_window_tokens, self.is_causal)
        x, rotation = self._embedded(token_ids, places)
        heads = before_attention(x, self._layers[0], rotation, self.sizes)
        attended = attend(heads, sequences)
        _mark_dynamic(x, attended, *(rotation or ()))
        for layer, following in zip(self._layers, self._layers[1:], strict=False):
            x, heads = self._between(x, attended, layer, following, rotation, self.sizes)
            attended = attend(heads, sequences)
        # Of the last layer only the lines' ends are wanted.
        x = after_attention(x[line_rows], attended[line_rows], self._layers[-1], self.sizes)
        if self._is_llama:
            wide = x.float()
            x = self._norm * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.sizes.eps)).to(x.dtype)
        head: Tensor = self._head(self._line_norm(x.float()))
        return head

    def _embedded(self, token_ids: Tensor, places: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        x = self._embedding[token_ids]
        if self._is_llama:
            cos, sin = (part[places] for part in self._rotations)
            return x, (cos, sin)
        weight, bias = self._embedding_norm
        x = x + self._place[places]
        return torch.nn.functional.layer_norm(x, (self.sizes.hidden_size,), weight, bias, self.sizes.eps), None


def _between(
    x: Tensor,
    attended: Tensor,
    layer: Layer,
    following: Layer,
    rotation: tuple[Tensor, Tensor] | None,
    sizes: Sizes,
) -> tuple[Tensor, Heads]:
    """From one layer's attention to the next one's."""
    x = after_attention(x, attended, layer, sizes)
    return x, before_attention(x, following, rotation, sizes)


def _placed(layer: Layer, device: torch.device, dtype: torch.dtype, *, is_quantized: bool) -> Layer:
    def place(part: Any) -> Matrix:
        if part.ndim == 2 and is_quantized:
            return Quantized(*(piece.to(device) for piece in quantized(part.detach())))
        moved: Tensor = part.detach().to(device, dtype).contiguous()
        return moved

    parts: Any = [place(part) for part in layer]
    return type(layer)(*parts)


def _gated(layer: Layer) -> Layer:
    """A layer with Llama's gate as one kernel, where there is Triton and it fits."""
    if not isinstance(layer, Llama) or not isinstance(layer.gate_up, Tensor) or find_spec("triton") is None:
        return layer
    from sluice.compressor.scoring.neural.gated_kernel import fits

    return layer._replace(gate_up=Gate(layer.gate_up)) if fits(layer.gate_up) else layer


def _mark_dynamic(*tensors: Tensor) -> None:
    """Say that the number of tokens differs from batch to batch, so that one compilation does for all."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
