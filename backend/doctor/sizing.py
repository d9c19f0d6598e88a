"""The arithmetic of memory: weights, KV cache per token, streams that fit. Plain functions; bytes in, bytes out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.backend.errors import ModelUnavailableError

BYTES_PER_WEIGHT = {"16bit": 2.0, "fp8": 1.0, "4bit": 0.56}
"""4-bit weights bring scales and zero points, and leave embeddings at 16 bits."""
BYTES_PER_KV = {"16bit": 2.0, "fp8": 1.0}
ACTIVATION_BYTES = 2 * 2**30
"""Room for activations, graphs and the runtime on each GPU; vLLM measures its own when it starts."""
_PACKED_TYPES = ("I32", "I8", "U8", "F8")
_CONTAINER_BITS = {"I32": 32, "U8": 8}
"""Numbers that several packed weights share."""
_BESIDE_PACKED = re.compile(r"(zeros|zero_point|scales?|scale_inv|g_idx|weight_shape|absmax|quant_map)$|quant_state")
"""Tensors that say how to unpack others."""
GPU_SHARE = 0.92
"""Of a GPU's memory, what vLLM takes by itself."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Weights that a checkpoint holds in less than 16 bits."""

    name: str
    """Its method, as `config.json` names it."""
    num_bytes: int
    """Of all weights, with their scales and all that is not packed."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model decides how much memory it takes."""

    name: str
    """Which model this is, or is like."""
    num_params: float
    num_layers: int
    num_kv_heads: int
    head_dim: int
    num_kv_layers: int | None = None
    """Layers that keep keys and values for all of the context; None: all of them."""
    latent_dim: int | None = None
    """Width of the one compressed vector a layer keeps instead of keys and values (MLA); None: it keeps both."""
    packing: Packing | None = None
    """How its weights are packed in the checkpoint, which is then the one way to run it; None: they are not."""

    @property
    def kv_values_per_token(self) -> int:
        """Numbers kept for each token."""
        layers = self.num_layers if self.num_kv_layers is None else self.num_kv_layers
        if self.latent_dim is not None:
            return layers * self.latent_dim
        return 2 * layers * self.num_kv_heads * self.head_dim


_KNOWN = (
    ModelShape("SmolLM2-135M", 0.135e9, 30, 3, 64),
    ModelShape("Qwen2.5-0.5B", 0.49e9, 24, 2, 64),
    ModelShape("Llama-3.2-1B", 1.24e9, 16, 8, 64),
    ModelShape("Llama-3.2-3B", 3.21e9, 28, 8, 128),
    ModelShape("Qwen3-4B", 4.02e9, 36, 8, 128),
    ModelShape("Llama-3.1-8B", 8.03e9, 32, 8, 128),
    ModelShape("Qwen3-14B", 14.8e9, 40, 8, 128),
    ModelShape("Qwen3-Coder-30B-A3B", 30.5e9, 48, 4, 128),
    ModelShape("Qwen2.5-Coder-32B", 32.8e9, 64, 8, 128),
    ModelShape("Llama-3.1-70B", 70.6e9, 80, 8, 128),
    ModelShape("gpt-oss-120b", 116.8e9, 36, 8, 64, num_kv_layers=18),
    ModelShape("Llama-3.1-405B", 405.9e9, 126, 8, 128),
    ModelShape("DeepSeek-V3", 671e9, 61, 128, 128, latent_dim=576),
)
"""Shapes as their config.json give them, smallest first."""


def shape_of_size(billions: float) -> ModelShape:
    """The shape of the known model that is nearest in size (by ratio), with this many parameters."""
    num_params = billions * 1e9
    near = min(_KNOWN, key=lambda known: max(known.num_params / num_params, num_params / known.num_params))
    return ModelShape(
        f"like {near.name}",
        num_params,
        near.num_layers,
        near.num_kv_heads,
        near.head_dim,
        near.num_kv_layers,
        near.latent_dim,
    )


def shape_of_config(folder: Path, billions: float | None = None) -> ModelShape:
    """The shape that a folder's `config.json` gives.

    Args:
        folder: with `config.json`, and the weights unless `billions` is given.
        billions: parameters, where the weights are not there to be counted.

    Raises:
        ModelUnavailableError: the file is missing, is no model's, or says too little.
    """
    path = folder.expanduser() / "config.json"
    try:
        whole: dict[str, Any] = json.loads(path.read_text("utf-8"))
        config = whole.get("text_config") or whole
        quantization = whole.get("quantization_config") or config.get("quantization_config")
        tensors = _tensors(folder.expanduser()) if billions is None else {}
        packing = _packing(tensors, quantization)
        heads = int(config["num_attention_heads"])
        layers = int(config["num_hidden_layers"])
        latent = config.get("kv_lora_rank")
        kinds = config.get("layer_types")
        return ModelShape(
            name=folder.name,
            num_params=billions * 1e9 if billions is not None else _count_params(tensors, packing, quantization),
            num_layers=layers,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            num_kv_layers=sum(kind == "full_attention" for kind in kinds) if kinds else None,
            latent_dim=int(latent) + int(config["qk_rope_head_dim"]) if latent else None,
            packing=packing,
        )
    except OSError as error:
        raise ModelUnavailableError(str(folder), f"cannot read {path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelUnavailableError(str(folder), f"{path} does not give the model's shape: {error!r}") from None


def weight_bytes(shape: ModelShape, weights: str) -> float:
    """Bytes of the weights, all GPUs together; those that are packed already are what they are."""
    if shape.packing is not None:
        return shape.packing.num_bytes
    return shape.num_params * BYTES_PER_WEIGHT[weights]


def kv_bytes_per_token(shape: ModelShape, kv: str) -> float:
    """Bytes of keys and values for each token, all GPUs together."""
    return shape.kv_values_per_token * BYTES_PER_KV[kv]


def kv_room_bytes(shape: ModelShape, *, gpu_bytes: float, num_gpus: int, weights: str) -> float:
    """What is left for the KV cache, all GPUs together; negative where the weights do not fit."""
    return num_gpus * (gpu_bytes * GPU_SHARE - ACTIVATION_BYTES) - weight_bytes(shape, weights)


def streams_that_fit(room_bytes: float, per_token: float, context: int) -> int:
    """Conversations of `context` tokens that can be held at a time."""
    return max(0, int(room_bytes // (per_token * context)))


def _tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """What the heads of the safetensors files say of each tensor; empty where there are none."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found |= {name: tensor for name, tensor in head.items() if name != "__metadata__"}
    return found


def _packing(tensors: Mapping[str, Mapping[str, Any]], quantization: Mapping[str, Any] | None) -> Packing | None:
    """How the weights are packed, by the settings or the tensors' types."""
    if not tensors or not (quantization or any(_is_packed(name, tensor) for name, tensor in tensors.items())):
        return None
    sizes = [tensor["data_offsets"][1] - tensor["data_offsets"][0] for tensor in tensors.values()]
    return Packing(str((quantization or {}).get("quant_method", "unknown")), sum(sizes))


def _count_params(
    tensors: Mapping[str, Mapping[str, Any]], packing: Packing | None, quantization: Mapping[str, Any] | None
) -> float:
    """Parameters by the tensors' shapes."""
    if not tensors:
        raise ValueError("no *.safetensors beside it: give --params, too")
    if packing is None:
        return float(sum(math.prod(tensor["shape"]) for tensor in tensors.values()))
    num_bits = _num_bits(quantization or {})
    total = 0.0
    for name, tensor in tensors.items():
        if not _BESIDE_PACKED.search(name):
            total += math.prod(tensor["shape"]) * _CONTAINER_BITS.get(tensor["dtype"], num_bits) / num_bits
    return total


def _is_packed(name: str, tensor: Mapping[str, Any]) -> bool:
    """Whether a tensor holds weights in less than 16 bits; masks and positions are whole numbers, too."""
    return "weight" in name.rpartition(".")[2] and str(tensor["dtype"]).startswith(_PACKED_TYPES)


def _num_bits(quantization: Mapping[str, Any]) -> int:
    """Bits of a packed weight, as AWQ, GPTQ and compressed-tensors say it."""
    groups = quantization.get("config_groups") or {}
    said = [group["weights"]["num_bits"] for group in groups.values() if group.get("weights")]
    return int(quantization.get("bits") or quantization.get("w_bit") or next(iter(said), 4))
