from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from sluice.backend.convert import convert_gguf
from sluice.backend.errors import WeightsError
from sluice.backend.tokenizer import Tokenizer
from sluice.backend.weights import resolve_model
from tests.backend.test_model import LLAMA3, SHAPE, logits_of

TOKENS = ["<|im_start|>", "<|im_end|>", "<tool_call>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "123", "Ġa"]
KINDS = [TokenType.CONTROL] * 2 + [TokenType.USER_DEFINED] + [TokenType.NORMAL] * (len(TOKENS) - 3)
SHAPES: dict[str, Any] = SHAPE | {"vocab_size": len(TOKENS)}
STRETCHED = LLAMA3 | {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
MODELS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPES),
    "llama-3": LlamaConfig(**SHAPES, head_dim=16, rope_parameters=STRETCHED, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SHAPES),
    "qwen3": Qwen3Config(**SHAPES, head_dim=16),
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(file: Path, model: Any, *, family: str, split: str, factors: torch.Tensor | None = None) -> None:
    """As llama.cpp writes it."""
    config = model.config
    writer = GGUFWriter(file, family)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(TOKENS)
    writer.add_token_types(KINDS)
    writer.add_token_merges(["1 2", "12 3", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    for name, values in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        prefix = ""
        if stem.startswith("model.layers."):
            _, _, number, stem = stem.split(".", 3)
            prefix = f"blk.{number}."
        array = values.numpy()
        if family == "llama" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config.num_attention_heads if "q_proj" in stem else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"{prefix}{NAMES[stem]}.{suffix}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_model(name: str) -> Any:
    """Of values that float16 holds."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS[name]).eval()
    for parameter in model.parameters():
        parameter.data = (parameter + torch.randn_like(parameter) * 0.1).half().float()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_computes_what_the_original_does(name: str, tmp_path: Path) -> None:
    model, file = random_model(name), tmp_path / "model.gguf"
    factors = None
    if name == "llama-3":
        plain = 500000.0 ** -(torch.arange(0, 16, 2) / 16)
        factors = plain / model.model.rotary_emb.inv_freq
        assert 1.0 < float(factors[4]) < 8.0 == float(factors[-1])
    write_gguf(file, model, family=name.partition("-")[0], split="qwen2", factors=factors)
    folder = resolve_model(str(file), tmp_path / "cache", lambda _: None)
    assert folder.name == "model"
    token_ids = torch.randint(3, len(TOKENS), (120,))
    with torch.inference_mode():
        expected = model(token_ids[None]).logits[0]
    torch.testing.assert_close(logits_of(folder.path, token_ids, [120]), expected, atol=2e-3, rtol=1e-3)
    said: list[str] = []
    assert resolve_model(str(file), tmp_path / "cache", said.append) == folder
    assert not said


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("smollm", ["1", "2", "3", "Ġa", "<tool_call>"]),
        ("qwen2", ["1", "2", "3", "Ġa", "<tool_call>"]),
        ("llama-bpe", ["<|im_start|>", "123", "Ġa", "<tool_call>"]),
    ],
)
def test_words_are_split_as_the_file_says(split: str, expected: list[str], tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", random_model("llama"), family="llama", split=split)
    folder = resolve_model(str(tmp_path / "model.gguf"), tmp_path, lambda _: None).path
    ids = Tokenizer(folder).encode("123 a<tool_call>", add_special_tokens=True)
    assert [TOKENS[token] for token in ids] == expected


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"family": "gpt2"}, r"holds a 'gpt2' model; read are llama, qwen2, qwen3"),
        ({"split": "tekken"}, r"splits words by 'tekken'; read is 'gpt2' with smollm, llama-bpe, qwen2"),
        ({"factors": torch.full((4,), 3.0)}, r"factors that are not Llama 3's"),
    ],
)
def test_what_would_be_converted_wrong_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file, random_model("llama"), **{"family": "llama", "split": "qwen2"} | changes)
    with pytest.raises(WeightsError, match=says):
        convert_gguf(file, tmp_path, lambda _: None)


@pytest.mark.parametrize("size", [0, 3, 20, 100, 1000, -100])
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, size: int) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file, random_model("llama"), family="llama", split="qwen2")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"model\.gguf cannot be read as GGUF \(is it whole"):
        convert_gguf(file, tmp_path, lambda _: None)


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"model\.gguf cannot be read as GGUF"):
        resolve_model(str(file), tmp_path / "cache", lambda _: None)
