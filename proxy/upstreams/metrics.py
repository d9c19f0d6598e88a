"""Counters of what was sent again, and which upstreams are passed over. Knows no request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class UpstreamMetrics:
    """The counters.

    Args:
        registry: where they are rendered; None keeps them to themselves.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self._retries = Counter(
            "sluice_upstream_retries",
            "Requests sent to the same upstream again, by what came of them before.",
            ["upstream", "reason"],
            registry=registry,
        )
        self._fallbacks = Counter(
            "sluice_upstream_fallbacks",
            "Requests sent to another upstream than the one that serves their model.",
            ["upstream", "fallback"],
            registry=registry,
        )
        self._open = Gauge(
            "sluice_upstream_open",
            "Whether an upstream is passed over because it failed again and again.",
            ["upstream"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def retried(self, upstream: str, reason: str) -> None:
        """Count a retry; `reason` is a status or an error's code."""
        self._retries.labels(upstream, reason).inc()

    def fell_back(self, upstream: str, fallback: str) -> None:
        """Count a request that goes to a fallback."""
        self._fallbacks.labels(upstream, fallback).inc()

    def set_open(self, upstream: str, *, is_open: bool) -> None:
        """Note whether an upstream is passed over."""
        self._open.labels(upstream).set(is_open)
