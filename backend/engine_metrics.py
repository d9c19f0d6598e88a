"""An engine's figures for Prometheus: under our own names, and under vLLM's where they mean the same.

So whatever watches a vLLM can watch this engine. Knows no HTTP.
"""

from __future__ import annotations

from dataclasses import fields

from sluice.backend.base import EngineStats
from sluice.backend.exposition import family
from sluice.backend.histogram import Histogram

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
        own, kind = f"sluice_engine_{entry.name.removeprefix('num_')}", "gauge"
        if isinstance(value, Histogram):
            own, kind, value = f"{own}_seconds", "histogram", value.distribution()
        elif own.endswith("_total"):
            kind = "counter"
        for name in (own, _VLLM_NAMES.get(entry.name)):
            if name is not None:
                lines += family(name, kind, [({}, value)])
    share = stats.num_blocks_in_use / stats.num_blocks if stats.num_blocks else 0.0
    lines += family("vllm:kv_cache_usage_perc", "gauge", [({}, share)])  # from 0 to 1, for all its name
    sizes = {"block_size": str(stats.block_size), "num_gpu_blocks": str(stats.num_blocks)}
    lines += family("vllm:cache_config_info", "gauge", [(sizes, 1)])
    return "\n".join(lines) + "\n"
