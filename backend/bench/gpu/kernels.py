"""Which kernels the device ran, and how long it ran any at all, by torch's profiler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_NUM_SHOWN = 15
_NUM_CHARS = 70


@dataclass(slots=True)
class KernelTimes:
    """What was recorded."""

    kernels: list[tuple[str, int, float]] = field(default_factory=list)
    """Name, how often it ran, seconds in all; the longest first."""
    wall_s: float = 0.0

    def __str__(self) -> str:
        busy_s = sum(seconds for _, _, seconds in self.kernels)
        lines = [f"{self.wall_s * 1e3:.1f} ms, kernels {busy_s * 1e3:.1f} ms"]
        for name, count, seconds in self.kernels[:_NUM_SHOWN]:
            share = seconds / busy_s
            lines.append(
                f"{seconds * 1e3:9.2f} ms {share:4.0%} {count:6} × {seconds / count * 1e6:8.1f} µs  {name[:_NUM_CHARS]}"
            )
        return "\n".join(lines)


@contextmanager
def record() -> Iterator[KernelTimes]:
    """Fills what it yields when the block ends. Without a GPU there are no kernels."""
    times = KernelTimes()
    activity = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
    with profile(activities=[activity]) as recorded:
        start_s = time.perf_counter()
        yield times
        times.wall_s = time.perf_counter() - start_s
    times.kernels = sorted(
        (
            (event.key, event.count, event.self_device_time_total / 1e6)
            for event in recorded.key_averages()
            if event.device_type == DeviceType.CUDA
        ),
        key=lambda kernel: -kernel[2],
    )
