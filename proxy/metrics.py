"""Counters of one proxy in Prometheus' form. Knows no request's content, and no label that grows with its users."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from sluice.proxy.meter.metrics import MeterMetrics
from sluice.proxy.scorer.metrics import ScorerMetrics
from sluice.proxy.upstreams.metrics import UpstreamMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OVERHEAD_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The counters, in a registry of their own.

    Args:
        is_shared: whether other workers count, too; what is rendered is then the sum over all of them.
    """

    def __init__(self, *, is_shared: bool = False) -> None:
        self._is_shared = is_shared
        self._registry = CollectorRegistry()
        self.upstreams = UpstreamMetrics(self._registry)
        self.meter = MeterMetrics(self._registry)
        self.scorer = ScorerMetrics(self._registry)
        self.requests = Counter("sluice_requests", "Requests by status sent.", ["status"], registry=self._registry)
        self.bypasses = Counter(
            "sluice_bypasses", "Requests whose compression was skipped or failed.", ["reason"], registry=self._registry
        )
        self.unreadable = Counter(
            "sluice_records_unreadable",
            "Records in the state store that could not be read and counted as lost: of another version, or damaged.",
            registry=self._registry,
        )
        self.tokens_in = Counter("sluice_tokens_in", "Tokens of messages that came in.", registry=self._registry)
        self.tokens_out = Counter("sluice_tokens_out", "Tokens of messages forwarded.", registry=self._registry)
        self.overhead_s = Histogram(
            "sluice_overhead_seconds",
            "Time added to a request, the upstream's own excluded.",
            buckets=_OVERHEAD_BUCKETS_S,
            registry=self._registry,
        )

    def count_tokens(self, tokens: tuple[int, int] | None) -> None:
        """Add the tokens of one request, in and out; None adds none."""
        if tokens is not None:
            self.tokens_in.inc(tokens[0])
            self.tokens_out.inc(tokens[1])

    def render(self) -> bytes:
        """Render all counters as text."""
        if self._is_shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
            return generate_latest(registry)
        return generate_latest(self._registry)
