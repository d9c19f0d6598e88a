"""Turns as OpenTelemetry traces and metrics, sent over OTLP; names follow the GenAI semantic conventions.

The only module that imports OpenTelemetry; it is imported where an endpoint is configured. The SDK reads its own
`OTEL_*` variables (service name, headers, intervals) beside. Spans carry counts and ids, never content.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sluice.proxy.errors import ConfigError
from sluice.proxy.meter.turn import Charge, Source, Turn
from sluice.proxy.wire.types import WireName

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

_OPERATIONS = {WireName.COMPLETIONS: "text_completion"}
_PROVIDERS = {WireName.MESSAGES: "anthropic"}
_TOKEN_BOUNDS = [4.0**power for power in range(14)]
_SECOND_BOUNDS = [0.01 * 2**power for power in range(14)]
_TIMEOUT_S = 5


class Telemetry:
    """Sends turns to a collector: an exporter of the meter.

    Args:
        tracers: makes spans.
        meters: makes instruments.
    """

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracers = tracers
        self._meters = meters
        self._tracer = tracers.get_tracer("sluice")
        self._propagator = TraceContextTextMapPropagator()
        meter = meters.get_meter("sluice")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of a request, by the upstream's count.",
            explicit_bucket_boundaries_advisory=_TOKEN_BOUNDS,
        )
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "From the request's end to the answer's.",
            explicit_bucket_boundaries_advisory=_SECOND_BOUNDS,
        )
        self._overhead = meter.create_histogram(
            "sluice.overhead",
            "s",
            "Time added to a request, the upstream's own excluded.",
            explicit_bucket_boundaries_advisory=[bound / 10 for bound in _SECOND_BOUNDS],
        )
        self._cost = meter.create_counter("sluice.cost", "{USD}", "What the upstreams charge, of what has a price.")
        self._untouched = meter.create_counter("sluice.cost.untouched", "{USD}", "The same, had nothing been dropped.")

    def export(self, turn: Turn, charged: Charge) -> None:
        """See `Exporter`. Hands over to the SDK's own threads."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        common = {
            "gen_ai.operation.name": _OPERATIONS.get(turn.wire, "chat"),
            "gen_ai.provider.name": _PROVIDERS.get(turn.wire, "openai"),
            "gen_ai.request.model": turn.model,
        }
        if turn.status >= 400:
            common["error.type"] = str(turn.status)
        carrier = {"traceparent": turn.traceparent} if turn.traceparent else {}
        span = self._tracer.start_span(
            f"{common['gen_ai.operation.name']} {turn.model}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.CLIENT,
            start_time=_ns(turn.at_s),
            attributes={**common, **_attributes(turn, charged)},
        )
        if turn.status >= 400:
            span.set_status(Status(StatusCode.ERROR))
        span.end(_ns(turn.at_s + turn.total_s))
        arm = {"sluice.arm": str(turn.arm)}
        self._duration.record(turn.total_s, common)
        self._overhead.record(turn.overhead_s, arm)
        self._cost.add(charged.cost, arm)
        self._untouched.add(charged.cost_untouched, arm)
        if turn.usage is not None and turn.source is Source.UPSTREAM:
            self._tokens.record(turn.usage.num_prompt, {**common, "gen_ai.token.type": "input"})
            self._tokens.record(turn.usage.output_tokens, {**common, "gen_ai.token.type": "output"})

    def close(self) -> None:
        """See `Exporter`. Waits some seconds at the most."""
        self._tracers.shutdown()
        self._meters.shutdown(timeout_millis=_TIMEOUT_S * 1000)


def check_installed(endpoint: str) -> None:
    """Check that what sends there can be made.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    for module in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"otlp_endpoint = {endpoint!r} needs the module {error.name!r}: pip install 'sluicegate[otel]'"
            ) from None


def make_telemetry(endpoint: str) -> Telemetry:
    """Make what sends to a collector.

    Args:
        endpoint: where it listens for OTLP over HTTP; `/v1/traces` and `/v1/metrics` are added.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    check_installed(endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    base = endpoint.rstrip("/")
    resource = Resource.create({"service.name": "sluice"})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{base}/v1/traces", timeout=_TIMEOUT_S)))
    exporter = OTLPMetricExporter(f"{base}/v1/metrics", timeout=_TIMEOUT_S)
    meters = MeterProvider([PeriodicExportingMetricReader(exporter)], resource=resource, shutdown_on_exit=False)
    return Telemetry(tracers, meters)


def _attributes(turn: Turn, charged: Charge) -> dict[str, str | int | float | bool]:
    """What is said of a turn beside what its metrics carry."""
    found: dict[str, str | int | float | bool | None] = {
        "gen_ai.conversation.id": turn.conversation or None,
        "gen_ai.request.stream": turn.stream,
        "http.response.status_code": turn.status,
        "sluice.upstream": turn.upstream,
        "sluice.mode": turn.mode,
        "sluice.arm": turn.arm,
        "sluice.answer": turn.source,
        "sluice.key": turn.key,
        "sluice.tokens.in": turn.tokens_in,
        "sluice.tokens.out": turn.tokens_out,
        "sluice.epoch": turn.epoch,
        "sluice.bypass": turn.bypass,
        "sluice.retries": turn.num_retries,
        "sluice.overhead_ms": turn.overhead_s * 1000,
    }
    if (usage := turn.usage) is not None:
        found |= {
            "gen_ai.usage.input_tokens": usage.num_prompt,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_5m + usage.cache_write_1h,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
        }
    if charged.is_priced:
        found |= {"sluice.cost": charged.cost, "sluice.cost.untouched": charged.cost_untouched}
    return {name: value for name, value in found.items() if value is not None}


def _ns(at_s: float) -> int:
    return round(at_s * 1e9)
