"""Tokens per second of a model against batch and window length, and what the machine's arithmetic would allow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sluice.backend.bench import bounds
from sluice.compressor.scoring.neural.layers import Sizes
from sluice.compressor.scoring.neural.packed_model import PackedModel
from sluice.compressor.scoring.neural.packing import Layout, pack
from sluice.compressor.scoring.neural.types import LineModel, Window
from sluice.eval.bench.scorer.shapes import random_window

_WARM_UPS = 3
"""At the most; one where it takes long."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Most multiplications and additions that a device does in a second."""

    measured: float
    """A product of two large matrices, in the model's form."""
    nominal: float | None
    """By the data sheet, dense bf16; None where the device is not known."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What was seen of one size of batch."""

    num_windows: int
    window_tokens: int
    num_tokens: int
    """In the windows, whatever of them was computed once for several."""
    seconds: Sequence[float]
    """Of each batch, ascending."""
    flops: float
    """Of a batch: what has to be multiplied and added."""

    @property
    def tokens_per_s(self) -> float:
        """Of the median batch."""
        return self.num_tokens / self.percentile_s(50)

    def percentile_s(self, percent: float) -> float:
        """A batch's time, in seconds."""
        return float(np.percentile(self.seconds, percent))

    def share(self, flops_per_s: float) -> float:
        """Of what the arithmetic alone would allow."""
        return self.flops / flops_per_s / self.percentile_s(50)


def measure(
    model: PackedModel, num_windows: int, window_tokens: int, *, num_shared: int = 0, seconds: float = 1.0
) -> Speed:
    """Score batches of random windows for about so many seconds.

    Args:
        model: ready.
        num_windows: of a batch.
        window_tokens: of each.
        num_shared: tokens that all windows of a batch begin with.
        seconds: to measure.
    """
    rng = np.random.default_rng(0)
    beginning = rng.integers(0, 30_000, num_shared).astype(np.int32) if num_shared else None
    windows = [random_window(rng, window_tokens, beginning) for _ in range(num_windows)]
    times: list[float] = []
    num_warm_ups, ends_s = 0, time.perf_counter() + seconds
    while num_warm_ups < 1 or (num_warm_ups < _WARM_UPS and time.perf_counter() < ends_s):
        model.logits(windows)
        num_warm_ups += 1
    ends_s = time.perf_counter() + seconds
    while not times or time.perf_counter() < ends_s:
        started_s = time.perf_counter()
        model.logits(windows)  # ends with the logits on the CPU: nothing is left to wait for
        times.append(time.perf_counter() - started_s)
    layout = pack(windows, is_shared=model.is_causal)
    flops = flops_of(model.sizes, model.num_layers, layout, is_causal=model.is_causal)
    return Speed(num_windows, window_tokens, num_windows * window_tokens, sorted(times), flops)


def flops_of(sizes: Sizes, num_layers: int, layout: Layout, *, is_causal: bool) -> float:
    """Multiplications and additions of a batch: matrices for each token, attention for each pair that is read.

    Of the last layer only the lines' ends are computed behind its attention.
    """
    hidden, wide = sizes.hidden_size, sizes.intermediate_size
    heads = (sizes.num_heads + 2 * sizes.num_kv_heads) * sizes.head_dim
    before = hidden * heads
    after = sizes.num_heads * sizes.head_dim * hidden + (3 if is_causal else 2) * hidden * wide
    num_tokens, num_lines = len(layout.token_ids), len(layout.line_rows)
    lengths, keys = np.diff(layout.bounds).astype(np.float64), np.diff(layout.key_bounds).astype(np.float64)
    num_pairs = layout.num_pairs if is_causal else float((lengths * keys).sum())
    products = num_tokens * (num_layers * before + (num_layers - 1) * after) + num_lines * after
    return 2.0 * products + 4.0 * num_layers * sizes.num_heads * sizes.head_dim * num_pairs


def peak_of(device: torch.device, form: str) -> Peak:
    """Measure what a device does at best."""
    if form != "int8":
        machine = bounds.measure(device, torch.bfloat16 if form == "bfloat16" else torch.float32)
        return Peak(machine.flops_per_s, machine.nominal[1] if machine.nominal else None)
    size = 1536
    left, right = (torch.ones(size, size, dtype=torch.int8, device=device) for _ in range(2))
    return Peak(2 * size**3 / bounds.best_s(device, lambda: torch._int_mm(left, right)), None)


def kernels(model: LineModel, num_windows: int, window_tokens: int) -> list[tuple[str, int, float]]:
    """What a GPU spends a batch's time on: each kernel's name, how often it ran, and its milliseconds, most first."""
    rng = np.random.default_rng(0)
    windows = [random_window(rng, window_tokens) for _ in range(num_windows)]
    model.logits(windows)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        model.logits(windows)
    found = [(event.key, event.count, event.self_device_time_total / 1000) for event in profile.key_averages()]
    return sorted(found, key=lambda kernel: -kernel[2])


def largest_difference(model: LineModel, reference: LineModel, windows: Sequence[Window]) -> float:
    """Between two models' logits."""
    pairs = zip(model.logits(windows), reference.logits(windows), strict=True)
    return max(float(np.abs(one - other).max()) for one, other in pairs)
