"""Puts an engine together: chooses device and dtype where they are left open, reads the weights, sizes the cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from sluice.backend.embedded.attention import make_attention
from sluice.backend.embedded.block_manager import BlockManager
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.kv_cache import KVCache, num_bytes_per_block
from sluice.backend.embedded.load import load_weights
from sluice.backend.embedded.model import Decoder
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.embedded.scheduler import Scheduler
from sluice.backend.errors import BackendError


def load_engine(folder: Path, config: EngineConfig, end_token_ids: frozenset[int]) -> EmbeddedEngine:
    """Load the model in `folder`.

    Raises ModelUnavailableError, and BackendError if CUDA is asked for and absent or the cache holds too little.
    """
    device = torch.device(_device(config.device))
    is_int8 = config.dtype == "int8"
    dtype: torch.dtype = getattr(torch, "bfloat16" if is_int8 else _dtype(config.dtype, device))
    model = ModelConfig.read(folder)
    # On CPUs attention is computed in float32, so the cache is kept in it; elsewhere in the dtype of the weights.
    cache_dtype = torch.float32 if device.type == "cpu" else dtype
    num_affordable = config.kv_memory_bytes // num_bytes_per_block(model, config.block_size, cache_dtype)
    wanted = min(model.max_model_len, config.max_model_len or model.max_model_len)
    max_model_len = min(wanted, num_affordable * config.block_size)
    if max_model_len < 2 * config.block_size:
        raise BackendError(f"a cache of {config.kv_memory_bytes} bytes holds only {max_model_len} tokens of this model")
    model = dataclasses.replace(model, max_model_len=max_model_len)
    weights = load_weights(folder, model, dtype, device, is_int8=is_int8)
    cache = KVCache(model, num_affordable, config.block_size, cache_dtype, device)
    runner = ModelRunner(Decoder(model, weights, cache), cache, make_attention(cache))
    scheduler = Scheduler(
        BlockManager(num_affordable, config.block_size),
        max_num_sequences=config.max_num_sequences,
        max_num_batched_tokens=max(config.max_num_batched_tokens, config.max_num_sequences),
    )
    return EmbeddedEngine(
        runner,
        scheduler,
        config,
        max_model_len=max_model_len,
        vocab_size=model.vocab_size,
        end_token_ids=end_token_ids,
    )


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendError("device 'cuda' is asked for, but torch finds none here")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(name: str, device: torch.device) -> str:
    """bfloat16 where the device computes in it."""
    if name != "auto":
        return name
    is_fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if is_fast else "float32"
