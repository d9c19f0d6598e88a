"""Converts a GGUF file to a safetensors folder: Llama, Mistral, Qwen2 and Qwen3 models with a byte-level BPE tokenizer.

The weights are unpacked to float16, which is finer than the 4 and 8 bits they come in. Knows no cache and no checksums.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sluice.backend.convert_tokenizer import write_tokenizer
from sluice.backend.errors import WeightsError

_FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""Architecture in GGUF → class; Mistral models are `llama` there."""
_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_ROPE_FACTORS = "rope_freqs.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What all Llama 3 models that stretch their rotation have; GGUF keeps only what follows from it."""


def convert_gguf(source: Path, folder: Path, on_progress: Callable[[str], None]) -> None:
    """Write config, tokenizer and weights of `source` into `folder`, which must exist.

    Raises WeightsError if the file cannot be read, or is of another architecture or tokenizer, OSError if the folder
    cannot be written.
    """
    from gguf import GGUFReader

    on_progress(f"reading {source.name}")
    try:
        reader = GGUFReader(source)
        meta = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, LookupError, OSError) as error:
        raise WeightsError(f"{source} cannot be read as GGUF (is it whole?): {error}") from None
    family = meta.get("general.architecture")
    if family not in _FAMILIES:
        raise WeightsError(f"{source} holds a {family!r} model; read are {', '.join(_FAMILIES)}")
    try:
        write_tokenizer(meta, folder, max_model_len=int(meta[f"{family}.context_length"]))
        config = _config(family, meta, {tensor.name: tensor for tensor in reader.tensors})
        _write_weights(reader.tensors, folder, config, on_progress)
    except KeyError as error:
        raise WeightsError(f"{source} lacks {error}") from None
    except WeightsError as error:
        raise WeightsError(f"{source} cannot be converted: {error}") from None
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(f"{text}\n", encoding="utf-8")


def _config(family: str, meta: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The model's `config.json`. Raises KeyError, WeightsError."""
    own = {name.removeprefix(f"{family}."): value for name, value in meta.items() if name.startswith(f"{family}.")}
    num_heads = int(own["attention.head_count"])
    head_dim = int(own.get("attention.key_length") or own["embedding_length"] // num_heads)
    return {
        "architectures": [_FAMILIES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": int(own["embedding_length"]),
        "intermediate_size": int(own["feed_forward_length"]),
        "max_position_embeddings": int(own["context_length"]),
        "num_attention_heads": num_heads,
        "num_hidden_layers": int(own["block_count"]),
        "num_key_value_heads": int(own.get("attention.head_count_kv", num_heads)),
        "head_dim": head_dim,
        "rms_norm_eps": float(f"{own['attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": _rope_parameters(own, head_dim, tensors.get(_ROPE_FACTORS)),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": False,
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "dtype": "float16",
    }


def _rope_parameters(own: Mapping[str, Any], head_dim: int, factors: Any) -> dict[str, Any]:
    """How positions turn queries and keys; `factors` (head_dim / 2,) divide the frequencies, where they are given."""
    theta, kind = float(own.get("rope.freq_base", 10_000.0)), own.get("rope.scaling.type", "none")
    if factors is not None:
        scaling = {"rope_type": "llama3", "factor": round(float(factors.data.max()), 4), **_LLAMA3}
        expected = [_llama3_factor(theta ** (2 * index / head_dim), scaling) for index in range(head_dim // 2)]
        if not all(math.isclose(*pair, rel_tol=1e-3) for pair in zip(expected, map(float, factors.data), strict=True)):
            raise WeightsError("its rotation is stretched by factors that are not Llama 3's")
    elif kind in ("linear", "yarn"):
        scaling = {"rope_type": kind, "factor": float(own["rope.scaling.factor"])}
        if kind == "yarn":
            scaling["original_max_position_embeddings"] = int(own["rope.scaling.original_context_length"])
    elif kind == "none":
        scaling = {"rope_type": "default"}
    else:
        raise WeightsError(f"its rotation is stretched by {kind!r}; read are linear, yarn and Llama 3's")
    return {**scaling, "rope_theta": theta}


def _llama3_factor(inverse_frequency: float, scaling: Mapping[str, Any]) -> float:
    """What Llama 3 divides a frequency by."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    num_turns = scaling["original_max_position_embeddings"] / (2 * math.pi * inverse_frequency)
    kept = min(max((num_turns - low) / (high - low), 0.0), 1.0)
    return float(1 / (kept + (1 - kept) / scaling["factor"]))


def _write_weights(tensors: Any, folder: Path, config: Mapping[str, Any], on_progress: Callable[[str], None]) -> None:
    """Unpack every tensor. Raises WeightsError for one that is not known."""
    import numpy as np
    from gguf.quants import dequantize
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    num_heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    unpacked = {}
    for index, tensor in enumerate(tensors):
        if index % 60 == 0:
            on_progress(f"unpacking weights: {100 * index // len(tensors)} %")
        if tensor.name == _ROPE_FACTORS:
            continue
        stem, _, suffix = tensor.name.rpartition(".")
        prefix, part = "", stem
        if stem.startswith("blk."):
            _, number, part = stem.split(".")
            prefix = f"model.layers.{number}."
        if part not in _NAMES:
            raise WeightsError(f"its tensor {tensor.name} belongs to no model that is read")
        values = dequantize(tensor.data, tensor.tensor_type)
        if part in num_heads and config["model_type"] == "llama":
            # There rotary pairs lie side by side in each head; safetensors has them as halves.
            pairs = values.reshape(num_heads[part], -1, 2, *values.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        unpacked[f"{prefix}{_NAMES[part]}.{suffix}"] = np.ascontiguousarray(values, dtype=np.float16)
    on_progress("writing weights")
    try:
        save_file(unpacked, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # so it calls a disk that is full, too
        raise OSError(str(error)) from None
