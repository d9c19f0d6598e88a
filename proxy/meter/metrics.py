"""The meter's counters in Prometheus' form. No label grows with users: no model, no key, no conversation."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from sluice.proxy.meter.turn import Charge, Source, Turn
from sluice.proxy.meter.usage import Usage


class MeterMetrics:
    """The counters: an exporter of the meter.

    Args:
        registry: where they are rendered; None keeps them to themselves.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self._turns = Counter(
            "sluice_turns",
            "Requests for answers, by upstream, status sent and what was done with the conversation.",
            ["upstream", "status", "arm"],
            registry=registry,
        )
        self._usage = Counter(
            "sluice_usage_tokens", "Tokens by the upstreams' own count.", ["upstream", "kind"], registry=registry
        )
        self._cost = Counter(
            "sluice_cost_dollars", "What the upstreams charge, of what has a price.", ["arm"], registry=registry
        )
        self._untouched = Counter(
            "sluice_cost_untouched_dollars", "What the same would have cost untouched.", ["arm"], registry=registry
        )
        self._unmetered = Counter(
            "sluice_unmetered_turns", "Answers of upstreams that came without a usage.", registry=registry
        )
        self._unpriced = Counter("sluice_unpriced_turns", "Answers of models without a price.", registry=registry)
        self._answers = Counter("sluice_answers", "Answers by where they came from.", ["source"], registry=registry)
        self._epochs = Counter("sluice_epochs", "Rewrites of earlier messages.", ["reason"], registry=registry)

    def export(self, turn: Turn, charged: Charge) -> None:
        """See `Exporter`."""
        self._turns.labels(turn.upstream, turn.status, turn.arm).inc()
        self._answers.labels(turn.source).inc()
        if turn.epoch is not None:
            self._epochs.labels(turn.epoch).inc()
        if turn.source is not Source.UPSTREAM:
            return
        self._cost.labels(turn.arm).inc(charged.cost)
        self._untouched.labels(turn.arm).inc(charged.cost_untouched)
        self._unmetered.inc(turn.status < 400 and not charged.is_metered)
        self._unpriced.inc(charged.is_metered and not charged.is_priced)
        if turn.usage is not None:
            for kind in Usage.__struct_fields__:
                self._usage.labels(turn.upstream, kind).inc(getattr(turn.usage, kind))

    def close(self) -> None:
        """See `Exporter`."""
