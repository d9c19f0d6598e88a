"""Converts a GGUF file of a Llama-shaped model with a byte-level BPE tokenizer to a safetensors folder.

The weights are unpacked to float16, which is finer than the 4 and 8 bits they come in. Knows no cache and no checksums.
GGUF stores q and k with each head's rotary pairs side by side; safetensors has them as halves, so they are put back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sluice.backend.errors import WeightsError

_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}

_CONTROL_TOKEN = 3  # token_type of special tokens in GGUF


def convert_gguf(source: Path, folder: Path, on_progress: Callable[[str], None]) -> None:
    """Write config, tokenizer and weights of `source` into `folder`, which must exist.

    Raises WeightsError if the file is of another architecture or tokenizer.
    """
    from gguf import GGUFReader

    on_progress(f"reading {source.name}")
    reader = GGUFReader(source)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    architecture, tokenizer = meta.get("general.architecture"), meta.get("tokenizer.ggml.model")
    if architecture != "llama" or tokenizer != "gpt2":
        raise WeightsError(
            f"{source} holds a {architecture!r} model with a {tokenizer!r} tokenizer; 'llama' with 'gpt2' is read"
        )
    _write_tokenizer(meta, folder)
    num_heads = int(meta["llama.attention.head_count"])
    num_kv_heads = int(meta.get("llama.attention.head_count_kv", num_heads))
    has_output = _write_weights(reader, folder, num_heads, num_kv_heads, on_progress)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": int(meta["llama.embedding_length"]),
        "intermediate_size": int(meta["llama.feed_forward_length"]),
        "max_position_embeddings": int(meta["llama.context_length"]),
        "num_attention_heads": num_heads,
        "num_hidden_layers": int(meta["llama.block_count"]),
        "num_key_value_heads": num_kv_heads,
        "head_dim": int(meta["llama.embedding_length"]) // num_heads,
        "rms_norm_eps": float(f"{meta['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(meta["llama.rope.freq_base"])},
        "tie_word_embeddings": not has_output,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "dtype": "float16",
    }
    _write_json(folder / "config.json", config)


def _write_weights(
    reader: Any, folder: Path, num_heads: int, num_kv_heads: int, on_progress: Callable[[str], None]
) -> bool:
    """Unpack every tensor; returns whether the output layer is separate from the embedding."""
    import numpy as np
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    tensors = {}
    for index, tensor in enumerate(reader.tensors):
        if index % 60 == 0:
            on_progress(f"unpacking weights: {100 * index // len(reader.tensors)} %")
        stem, _, suffix = tensor.name.rpartition(".")
        if stem.startswith("blk."):
            _, number, part = stem.split(".")
            name = f"model.layers.{number}.{_NAMES[part]}.{suffix}"
        else:
            part = stem
            name = f"{_NAMES[part]}.{suffix}"
        values = dequantize(tensor.data, tensor.tensor_type)
        if part in ("attn_q", "attn_k"):
            heads = num_heads if part == "attn_q" else num_kv_heads
            rows, columns = values.shape
            values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        tensors[name] = np.ascontiguousarray(values, dtype=np.float16)
    on_progress("writing weights")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return "lm_head.weight" in tensors


def _write_tokenizer(meta: dict[str, Any], folder: Path) -> None:
    """Rebuild the byte-level BPE tokenizer; `smollm` splits numbers into digits."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    if meta["tokenizer.ggml.pre"] != "smollm":
        raise WeightsError(f"the tokenizer splits words by {meta['tokenizer.ggml.pre']!r}; only 'smollm' is known")
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in meta["tokenizer.ggml.merges"])]
    tokenizer = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds: list[int] = meta["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[meta["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]],
            "pad_token": tokens[meta["tokenizer.ggml.padding_token_id"]],
            "chat_template": meta["tokenizer.chat_template"],
            "clean_up_tokenization_spaces": False,
            "model_max_length": int(meta["llama.context_length"]),
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
