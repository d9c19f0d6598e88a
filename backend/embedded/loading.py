"""Puts an engine together: chooses device and dtypes where they are left open, reads the weights, sizes the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sluice.backend.embedded.attention import AttentionBackend, make_attention
from sluice.backend.embedded.block_manager import BlockManager
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine, Limits
from sluice.backend.embedded.kv_cache import KVCache, num_bytes_per_block
from sluice.backend.embedded.load import WeightForm, load_weights
from sluice.backend.embedded.model import Decoder, Weights
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.passing_thread import in_passing_thread
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.embedded.scheduler import Scheduler
from sluice.backend.embedded.speculation import Drafting, DraftModel
from sluice.backend.errors import BackendError

if TYPE_CHECKING:  # CUDA alone has them
    from sluice.backend.embedded.graphs import DecodeGraphs

_KV_DTYPES = {"fp8": torch.float8_e4m3fn} | {
    name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "int8")
}
_CPU_KV_BYTES = 2 << 30
_GPU_KV_SHARE = 0.9
"""Of the memory that is free when the weights are in, at most; the rest is for activations and recorded steps."""


def load_engine(
    folder: Path,
    config: EngineConfig,
    end_token_ids: frozenset[int],
    *,
    on_failed: Callable[[str], None] | None = None,
) -> EmbeddedEngine:
    """Load the model in `folder`; `on_failed` is told why the engine ends, where nobody has closed it.

    Raises ModelUnavailableError, and BackendError if CUDA is asked for and absent, the cache holds too little or the
    GPU's memory is full.
    """

    def load() -> EmbeddedEngine:
        form = weight_form(config)
        model = ModelConfig.read(folder)
        try:
            return make_engine(model, load_weights(folder, model, form), form, config, end_token_ids, on_failed)
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"the GPU has no memory left for the engine of {folder.name}: end what else runs on it, or give keys "
                f"and values less with --kv-cache-gib ({str(error).partition('. GPU')[0]})"
            ) from None

    return in_passing_thread(load)


def weight_form(config: EngineConfig) -> WeightForm:
    """Device and dtype of the weights. Raises BackendError if CUDA is asked for and absent."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise BackendError(f"device {config.device!r} is asked for, but torch finds none here")
    device = torch.device(config.device if config.device != "auto" else "cuda" if has_cuda else "cpu")
    is_fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    name = config.dtype if config.dtype != "auto" else "bfloat16" if is_fast else "float32"
    return WeightForm.named(name, device)


def make_engine(
    model: ModelConfig,
    weights: Weights,
    form: WeightForm,
    config: EngineConfig,
    end_token_ids: frozenset[int],
    on_failed: Callable[[str], None] | None = None,
) -> EmbeddedEngine:
    """An engine over weights that are in memory already; see `load_engine`.

    Raises BackendError if the cache holds too little, ModelUnavailableError for a draft model that does not fit.
    """
    is_gpu = form.device.type == "cuda"
    draft_model = None if config.draft_model is None else DraftModel.load(config.draft_model, form, model.vocab_size)
    num_batched_tokens = max(_or(config.max_num_batched_tokens, 8192 if is_gpu else 512), config.max_num_sequences)
    model, cache = _make_cache(model, form, config, num_batched_tokens)
    decoder = Decoder(model, weights, cache)
    attention = make_attention(cache)
    runner = ModelRunner(decoder, cache, attention, _graphs(decoder, cache, attention, config))
    scheduler = Scheduler(
        BlockManager(cache.num_blocks, config.block_size),
        max_num_sequences=config.max_num_sequences,
        max_num_batched_tokens=num_batched_tokens,
    )
    num_drafting_tokens = _or(config.max_num_drafting_tokens, 256 if is_gpu else 32)
    drafting = Drafting(config.max_num_draft_tokens, num_drafting_tokens, draft_model)
    max_num_open = config.max_num_waiting + config.max_num_sequences
    limits = Limits(model.max_model_len, model.vocab_size, config.max_num_sequences, max_num_open)
    return EmbeddedEngine(runner, scheduler, drafting, limits, end_token_ids, on_failed)


def gpu_kv_bytes(num_free_bytes: int, model: ModelConfig, num_batched_tokens: int) -> int:
    """Memory for keys and values on a GPU: what the activations of a full step leave, and a margin for the rest.

    A layer holds the inputs and outputs of its products in 16 bits, and queries, keys and values in 32 twice over.
    """
    num_heads = model.num_heads + 2 * model.num_kv_heads
    per_token = 8 * model.intermediate_size + 14 * num_heads * model.head_dim + 8 * model.hidden_size
    return max(0, min(int(num_free_bytes * _GPU_KV_SHARE), num_free_bytes - 3 * num_batched_tokens * per_token // 2))


def _make_cache(
    model: ModelConfig, form: WeightForm, config: EngineConfig, num_batched_tokens: int
) -> tuple[ModelConfig, KVCache]:
    """The cache, and the model's shape with the window that it holds. Raises BackendError if that is too little."""
    # On CPUs attention is computed in float32; elsewhere in the dtype of the weights.
    read = torch.float32 if form.device.type == "cpu" else form.dtype
    stored = read if config.kv_dtype == "auto" else _KV_DTYPES[config.kv_dtype]
    num_bytes = config.kv_memory_bytes
    if num_bytes is None:
        num_bytes = _CPU_KV_BYTES
        if form.device.type == "cuda":
            num_bytes = gpu_kv_bytes(torch.cuda.mem_get_info(form.device)[0], model, num_batched_tokens)
    num_blocks = num_bytes // num_bytes_per_block(model, config.block_size, stored)
    wanted = min(model.max_model_len, config.max_model_len or model.max_model_len)
    max_model_len = min(wanted, num_blocks * config.block_size)
    if max_model_len < 2 * config.block_size:
        raise BackendError(
            f"{num_bytes / 2**30:.3g} GiB for keys and values hold only {max_model_len} tokens of this model: "
            "give more with --kv-cache-gib"
        )
    model = dataclasses.replace(model, max_model_len=max_model_len)
    return model, KVCache(model, num_blocks, config.block_size, form.device, stored=stored, read=read)


def _graphs(decoder: Decoder, cache: KVCache, attention: AttentionBackend, config: EngineConfig) -> DecodeGraphs | None:
    """Recorded decoding steps, where the device has them."""
    if cache.device.type != "cuda" or not config.use_cuda_graphs:
        return None
    from sluice.backend.embedded.attention.paged import PagedAttention
    from sluice.backend.embedded.graphs import DecodeGraphs

    if not isinstance(attention, PagedAttention):
        return None
    return DecodeGraphs(decoder, cache, attention, max_num_sequences=config.max_num_sequences)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
