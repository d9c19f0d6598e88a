"""What the decoder needs to know of a model, read from its `config.json`.

Knows the Llama, Mistral, Qwen2 and Qwen3 families (SmolLM2 is a Llama); anything that would compute something else is
refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.backend.errors import ModelUnavailableError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the rotary frequencies are stretched for longer windows."""

    kind: str
    """`linear`, `llama3` or `yarn`."""
    factor: float
    original_max_len: int = 0
    """Positions that the model was trained on (Llama 3, YaRN)."""
    low_freq_factor: float = 1.0
    """Llama 3: waves longer than the trained length divided by this are stretched."""
    high_freq_factor: float = 1.0
    """Llama 3: waves shorter than the trained length divided by this are kept."""
    beta_fast: float = 32.0
    """YaRN: waves that turn more often within the trained length are kept."""
    beta_slow: float = 1.0
    """YaRN: waves that turn less often are stretched."""
    is_truncated: bool = True
    """YaRN: the bounds between the two are whole dimensions."""
    attention_factor: float = 1.0
    """YaRN: queries and keys are multiplied by it."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_model_len: int
    tie_word_embeddings: bool
    has_qk_norm: bool
    """Queries and keys are normalised per head (Qwen3)."""

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Raises ModelUnavailableError for a family or a feature that is not served."""
        try:
            raw: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelUnavailableError(str(folder), f"its config.json cannot be read: {error}") from None

        def refuse(key: str, known: str) -> ModelUnavailableError:
            return ModelUnavailableError(str(folder), f"its config has {key} {raw.get(key)!r}; served: {known}")

        family = raw.get("model_type")
        if family not in FAMILIES:
            raise refuse("model_type", ", ".join(FAMILIES))
        if raw.get("hidden_act", "silu") != "silu":
            raise refuse("hidden_act", "silu")
        if "quantization_config" in raw:
            raise refuse("quantization_config", "plain float weights")
        try:
            num_heads = int(raw["num_attention_heads"])
            rope_scaling = _rope_scaling(raw, folder)
            max_model_len = int(raw["max_position_embeddings"])
            if rope_scaling is not None and rope_scaling.kind == "yarn":  # files may keep the trained length there
                max_model_len = max(max_model_len, int(rope_scaling.factor * rope_scaling.original_max_len))
            if raw.get("sliding_window") and raw.get("use_sliding_window", family == "mistral"):
                max_model_len = min(max_model_len, int(raw["sliding_window"]))  # within it, attention is full
            return cls(
                vocab_size=int(raw["vocab_size"]),
                hidden_size=int(raw["hidden_size"]),
                intermediate_size=int(raw["intermediate_size"]),
                num_layers=int(raw["num_hidden_layers"]),
                num_heads=num_heads,
                num_kv_heads=int(raw.get("num_key_value_heads") or num_heads),
                head_dim=int(raw.get("head_dim") or raw["hidden_size"] // num_heads),
                rms_norm_eps=float(raw["rms_norm_eps"]),
                rope_theta=_rope_theta(raw),
                rope_scaling=rope_scaling,
                max_model_len=max_model_len,
                tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
                has_qk_norm=family == "qwen3",
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnavailableError(str(folder), f"its config.json lacks or spoils {error}") from None


def _rope_theta(raw: dict[str, Any]) -> float:
    """Older files have it at the top, newer ones under `rope_parameters`."""
    return float((raw.get("rope_parameters") or {}).get("rope_theta", raw.get("rope_theta", 10_000.0)))


def _rope_scaling(raw: dict[str, Any], folder: Path) -> RopeScaling | None:
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(scaling["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            float(scaling["factor"]),
            int(scaling["original_max_position_embeddings"]),
            low_freq_factor=float(scaling["low_freq_factor"]),
            high_freq_factor=float(scaling["high_freq_factor"]),
        )
    if kind == "yarn":
        return _yarn(scaling, int(raw["max_position_embeddings"]))
    raise ModelUnavailableError(
        str(folder), f"its config has rope_type {kind!r}; served: default, linear, llama3, yarn"
    )


def _yarn(scaling: dict[str, Any], max_len: int) -> RopeScaling:
    """The attention factor is given, or follows from the factor by the paper's rule (arXiv 2309.00071, § 3.4)."""
    original_max_len = int(scaling.get("original_max_position_embeddings") or max_len)
    factor = float(scaling.get("factor") or max_len / original_max_len)

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention_factor = scaling.get("attention_factor")
    if attention_factor is None:
        mscale, mscale_all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
        attention_factor = magnitude(1.0)
        if mscale and mscale_all_dim:
            attention_factor = magnitude(mscale) / magnitude(mscale_all_dim)
    return RopeScaling(
        "yarn",
        factor,
        original_max_len,
        beta_fast=float(scaling.get("beta_fast") or 32.0),
        beta_slow=float(scaling.get("beta_slow") or 1.0),
        is_truncated=bool(scaling.get("truncate", True)),
        attention_factor=float(attention_factor),
    )
