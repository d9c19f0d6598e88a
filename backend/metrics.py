"""What a backend's `/metrics` says, read alike from vLLM and from the embedded engine. Knows no routes of ours.

Names are those of vLLM 0.32, with earlier ones beside them; the embedded engine uses them too (`engine_metrics.py`).
What a backend does not tell is None: an absent figure is not a zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import httpx

from sluice.backend.exposition import Samples, family, parse, parse_histogram
from sluice.backend.histogram import Distribution

_MAX_BYTES = 8 * 2**20
"""Of a backend's metrics; vLLM's are some ten thousand."""


@dataclass(frozen=True, slots=True)
class BackendMetrics:
    """The figures that matter; counters are since the backend's start."""

    num_running: float | None = None
    """Requests that are computed."""
    num_waiting: float | None = None
    """Requests that wait for room."""
    kv_usage: float | None = None
    """Share of KV blocks in use, 0 to 1."""
    kv_capacity_tokens: int | None = None
    """Tokens that the KV cache has room for."""
    prompt_tokens: float | None = None
    """Tokens of prompts."""
    cached_tokens: float | None = None
    """Of the prompts' tokens, those found in the prefix cache."""
    output_tokens: float | None = None
    """Tokens generated."""
    draft_tokens: float | None = None
    """Tokens proposed by speculation."""
    accepted_tokens: float | None = None
    """Of the drafted tokens, those that the model agreed with."""
    preemptions: float | None = None
    """Sequences sent back to wait for want of room."""
    ttft: Distribution | None = None
    """Time to the first token."""
    itl: Distribution | None = None
    """Time between tokens."""

    @property
    def prefill_tokens(self) -> float | None:
        """Prompt tokens that were computed."""
        if self.prompt_tokens is None or self.cached_tokens is None:
            return None
        return self.prompt_tokens - self.cached_tokens

    @property
    def prefix_hit_rate(self) -> float | None:
        """Share of prompt tokens found in the cache; None before any."""
        return (
            self.cached_tokens / self.prompt_tokens if self.prompt_tokens and self.cached_tokens is not None else None
        )

    @property
    def draft_acceptance(self) -> float | None:
        """Share of drafted tokens that were accepted; None where none were drafted."""
        if not self.draft_tokens or self.accepted_tokens is None:
            return None
        return self.accepted_tokens / self.draft_tokens

    def as_json(self) -> dict[str, float | int | None]:
        """Flat figures for `/v1/stats`."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("ttft", "itl")}
        for name, times in (("ttft", self.ttft), ("itl", self.itl)):
            plain[f"{name}_mean_ms"] = times.mean_ms if times else None
            plain[f"{name}_p50_ms"] = times.percentile_ms(50) if times else None
            plain[f"{name}_p95_ms"] = times.percentile_ms(95) if times else None
        for name in ("prefill_tokens", "prefix_hit_rate", "draft_acceptance"):
            plain[name] = getattr(self, name)
        return plain


_COUNTERS = (
    "prompt_tokens", "cached_tokens", "prefill_tokens", "output_tokens", "draft_tokens", "accepted_tokens",
    "preemptions",
)  # fmt: skip
_GAUGES = ("num_running", "num_waiting", "kv_usage", "kv_capacity_tokens", "prefix_hit_rate", "draft_acceptance")
_HISTOGRAMS = ("ttft", "itl")
_SUFFIXES = {"counter": "_total", "gauge": "", "histogram": "_seconds"}


def prometheus(backends: Mapping[str, BackendMetrics]) -> str:
    """The figures of several backends in Prometheus' text form, as `sluice_backend_*` with the label `backend`.

    Times are histograms, so that percentiles can be had over any window; what a backend does not tell is left out.
    """
    lines: list[str] = []
    for kind, names in (("counter", _COUNTERS), ("gauge", _GAUGES), ("histogram", _HISTOGRAMS)):
        for name in names:
            told = [({"backend": backend}, getattr(figures, name)) for backend, figures in backends.items()]
            samples = [(labels, value) for labels, value in told if value is not None]
            lines += family(f"sluice_backend_{name}{_SUFFIXES[kind]}", kind, samples)
    return "".join(f"{line}\n" for line in lines)


def backend_metrics(text: str) -> BackendMetrics:
    """Pick the figures out of what `/metrics` answered; several engines behind one port are added up."""
    samples = parse(text)
    return BackendMetrics(
        num_running=_sum(samples, "vllm:num_requests_running"),
        num_waiting=_sum(samples, "vllm:num_requests_waiting"),
        kv_usage=_kv_usage(samples),
        kv_capacity_tokens=_kv_capacity(samples),
        prompt_tokens=_sum(samples, "vllm:prompt_tokens_total"),
        cached_tokens=_sum(
            samples,
            "vllm:prompt_tokens_cached_total",
            "vllm:prefix_cache_hits_total",
            "vllm:gpu_prefix_cache_hits_total",
        ),
        output_tokens=_sum(samples, "vllm:generation_tokens_total"),
        draft_tokens=_sum(samples, "vllm:spec_decode_num_draft_tokens_total"),
        accepted_tokens=_sum(samples, "vllm:spec_decode_num_accepted_tokens_total"),
        preemptions=_sum(samples, "vllm:num_preemptions_total"),
        ttft=_histogram(samples, "vllm:time_to_first_token_seconds"),
        itl=_histogram(samples, "vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    )


async def read_metrics(url: str, *, timeout_s: float = 2.0) -> BackendMetrics:
    """Ask a backend.

    Args:
        url: its origin, without `/v1`.
        timeout_s: longest wait, in seconds.

    Raises:
        httpx.HTTPError: it does not answer, or not with 200.
    """
    text = bytearray()
    headers = {"accept-encoding": "identity"}
    async with (
        httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client,
        client.stream("GET", f"{url}/metrics", headers=headers) as response,
    ):
        response.raise_for_status()
        async for part in response.aiter_raw():  # packed unasked, it is no text, and not unpacked to any size
            text += part
            if len(text) > _MAX_BYTES:
                raise httpx.ReadError(f"{url}/metrics holds more than {_MAX_BYTES} bytes")
    return backend_metrics(text.decode("utf-8", "replace"))


def _values(samples: Samples, names: Iterable[str]) -> list[float]:
    """Values of the first of the names that is there."""
    return next(([value for _, value in samples[name]] for name in names if name in samples), [])


def _sum(samples: Samples, *names: str) -> float | None:
    values = _values(samples, names)
    return sum(values) if values else None


def _kv_usage(samples: Samples) -> float | None:
    values = _values(samples, ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"))
    return sum(values) / len(values) if values else None


def _kv_capacity(samples: Samples) -> int | None:
    total = 0
    for labels, _ in samples.get("vllm:cache_config_info", []):
        size = labels.get("kv_cache_size_tokens", "")
        blocks, block_tokens = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        if size.isdigit():
            total += int(size)
        elif blocks.isdigit() and block_tokens.isdigit():
            total += int(blocks) * int(block_tokens)
    return total or None


def _histogram(samples: Samples, *names: str) -> Distribution | None:
    """The first of the names that is there."""
    return next((found for name in names if (found := parse_histogram(samples, name)) is not None), None)
