"""An engine's figures in Prometheus' text format: under our own names, and under vLLM's where they mean the same.

So whatever watches a vLLM can watch this engine. Knows no HTTP.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields

from sluice.backend.base import EngineStats
from sluice.backend.histogram import BOUNDS_S, Histogram

_VLLM_NAMES = {
    "num_running": "vllm:num_requests_running",
    "num_waiting": "vllm:num_requests_waiting",
    "prompt_tokens_total": "vllm:prompt_tokens_total",
    "cached_tokens_total": "vllm:prompt_tokens_cached_total",
    "output_tokens_total": "vllm:generation_tokens_total",
    "draft_tokens_total": "vllm:spec_decode_num_draft_tokens_total",
    "accepted_tokens_total": "vllm:spec_decode_num_accepted_tokens_total",
    "preemptions_total": "vllm:num_preemptions_total",
    "ttft": "vllm:time_to_first_token_seconds",
    "itl": "vllm:inter_token_latency_seconds",
}
"""Field of `EngineStats` → name."""


def render_metrics(stats: EngineStats) -> str:
    """All figures; durations in seconds."""
    lines: list[str] = []
    for entry in fields(stats):
        value = getattr(stats, entry.name)
        names = [_own_name(entry.name, value)]
        if entry.name in _VLLM_NAMES:
            names.append(_VLLM_NAMES[entry.name])
        for name in names:
            lines += _histogram(name, value) if isinstance(value, Histogram) else _number(name, value)
    share = stats.num_blocks_in_use / stats.num_blocks if stats.num_blocks else 0.0
    lines += _number("vllm:kv_cache_usage_perc", share)  # a share from 0 to 1, for all its name
    lines.append("# TYPE vllm:cache_config_info gauge")
    lines.append(f'vllm:cache_config_info{{block_size="{stats.block_size}",num_gpu_blocks="{stats.num_blocks}"}} 1')
    return "\n".join(lines) + "\n"


def _own_name(field_name: str, value: object) -> str:
    unit = "_seconds" if isinstance(value, Histogram) else ""
    return f"sluice_engine_{field_name.removeprefix('num_')}{unit}"


def _number(name: str, value: float) -> Iterator[str]:
    yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
    yield f"{name} {value}"


def _histogram(name: str, histogram: Histogram) -> Iterator[str]:
    yield f"# TYPE {name} histogram"
    sums = list(itertools.accumulate(histogram.counts))
    for bound, at_most in zip([*map(str, BOUNDS_S), "+Inf"], sums, strict=True):
        yield f'{name}_bucket{{le="{bound}"}} {at_most}'
    yield f"{name}_sum {histogram.sum_s}"
    yield f"{name}_count {sums[-1]}"
