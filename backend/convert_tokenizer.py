"""Rebuilds the byte-level BPE tokenizer of a GGUF file for the `tokenizers` library.

GGUF has tokens and merges, and the name of the way in which text is split into words before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice.backend.errors import WeightsError

_CONTROL, _USER_DEFINED = 3, 4  # token_type in GGUF: of the model's own, and others that are never split
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {"smollm": None, "llama-bpe": _WORDS.replace("NUMBERS", "{1,3}"), "qwen2": _WORDS.replace("NUMBERS", "")}
"""Name in GGUF → pattern; `smollm` is GPT-2's with single digits."""


def write_tokenizer(meta: Mapping[str, Any], folder: Path, *, max_model_len: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Raises KeyError if `meta`, the file's own keys, lacks one, and WeightsError for another kind of tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
    from tokenizers.models import BPE

    kind, split = meta["tokenizer.ggml.model"], meta.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split not in _SPLITS:
        raise WeightsError(
            f"its tokenizer is {kind!r} and splits words by {split!r}; read is 'gpt2' with {', '.join(_SPLITS)}"
        )
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in meta["tokenizer.ggml.merges"])]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer: Any = Tokenizer(BPE(vocabulary, merges, ignore_merges=split == "llama-bpe"))
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _splitter(_SPLITS[split])
    tokenizer.decoder = decoders.ByteLevel()
    kinds: list[int] = meta["tokenizer.ggml.token_type"]
    for number, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
        tokenizer.add_tokens(
            [
                AddedToken(token, normalized=False, special=is_special)
                for token, of_token in zip(tokens, kinds, strict=True)
                if of_token == number
            ]
        )
    named = {
        f"{name}_token": tokens[meta[key]]
        for name, key in (
            ("bos", "tokenizer.ggml.bos_token_id"),
            ("eos", "tokenizer.ggml.eos_token_id"),
            ("pad", "tokenizer.ggml.padding_token_id"),
        )
        if key in meta
    }
    if meta.get("tokenizer.ggml.add_bos_token", split == "llama-bpe"):
        bos = named["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    # Not by its own `save`, whose errors are of no kind.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "chat_template": meta.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_model_len,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(f"{text}\n", encoding="utf-8")


def _splitter(pattern: str | None) -> Any:
    from tokenizers import Regex, pre_tokenizers

    if pattern is None:
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
