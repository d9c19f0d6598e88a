"""What the machine allows: measured memory bandwidth and arithmetic, and the times that follow for a model.

A decoding step reads all weights once and each stream's keys and values; a prompt costs its matrix products.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sluice.backend.embedded.model_config import ModelConfig

_NOMINAL = {
    "H100 PCIe": (2.0e12, 756e12),
    "H100": (3.35e12, 989e12),
    "H200": (4.8e12, 989e12),
    "A100": (2.04e12, 312e12),
}
"""Bytes/s and dense bf16 FLOP/s by the vendor's data sheets."""
_NUM_TRIES = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """What one device was seen to do at best."""

    bytes_per_s: float
    flops_per_s: float
    """In the dtype that was asked for."""
    nominal: tuple[float, float] | None = None
    """The same by the data sheet, where the device is known."""


def measure(device: torch.device, dtype: torch.dtype) -> Machine:
    """Read a large tensor, multiply two large matrices; the best of some tries, about two seconds."""
    is_gpu = device.type == "cuda"
    values = torch.ones((1 << 31 if is_gpu else 1 << 29) // 4, dtype=torch.float32, device=device)
    seconds = best_s(device, lambda: values.sum())
    size = 8192 if is_gpu else 1536
    # Random, as a GPU that multiplies ones uses less power, and is faster for it.
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product_s = best_s(device, lambda: left @ right)
    nominal = None
    if is_gpu:
        name = torch.cuda.get_device_name(device)
        nominal = next((figures for known, figures in _NOMINAL.items() if known in name), None)
    return Machine(values.numel() * 4 / seconds, 2 * size**3 / product_s, nominal)


def num_matrix_weights(config: ModelConfig) -> int:
    """Weights that each token is multiplied with: all matrices, the output layer's included."""
    hidden, heads = config.hidden_size, config.num_heads + 2 * config.num_kv_heads
    attention = hidden * heads * config.head_dim + config.num_heads * config.head_dim * hidden
    return config.num_layers * (attention + 3 * hidden * config.intermediate_size) + config.vocab_size * hidden


def num_kv_bytes_per_token(config: ModelConfig, num_bytes_per_value: float) -> float:
    """Keys and values of one token in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * num_bytes_per_value


def decode_step_s(
    config: ModelConfig,
    machine: Machine,
    *,
    num_streams: int,
    context_len: int,
    num_bytes_per_weight: float,
    num_bytes_per_kv_value: float,
) -> float:
    """Least time of one step of all streams: by what is read, or by what is multiplied, whichever is longer."""
    num_bytes = num_matrix_weights(config) * num_bytes_per_weight
    num_bytes += num_streams * context_len * num_kv_bytes_per_token(config, num_bytes_per_kv_value)
    flops = 2 * num_matrix_weights(config) * num_streams
    return max(num_bytes / machine.bytes_per_s, flops / machine.flops_per_s)


def prefill_flops(config: ModelConfig, num_tokens: int) -> float:
    """Of a prompt: the layers' products for each token, attention over half the square, one token's logits."""
    head = config.vocab_size * config.hidden_size
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * num_tokens * num_tokens / 2
    return 2 * (num_matrix_weights(config) - head) * num_tokens + 2 * head + attention


def best_s(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of the fastest of some tries, until the device has done the work; the first time does not count."""
    work()
    best = float("inf")
    for _ in range(_NUM_TRIES):
        _wait(device)
        start_s = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start_s)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
