"""Against a collector on loopback that keeps what it is sent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sluice.proxy.errors import ConfigError
from sluice.proxy.meter import load_prices, make_meter
from sluice.proxy.meter.telemetry import make_telemetry
from sluice.proxy.meter.turn import Source
from sluice.proxy.settings import Settings
from tests.proxy.meter.turns import AT_S, MODEL, turn


class Collector:
    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.bodies.setdefault(self.path, []).append(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies.get("/v1/traces", [])]
        scopes = [scope for request in requests for batch in request.resource_spans for scope in batch.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def metrics(self) -> dict[str, Any]:
        requests = [ExportMetricsServiceRequest.FromString(body) for body in self.bodies.get("/v1/metrics", [])]
        scopes = [scope for request in requests for batch in request.resource_metrics for scope in batch.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    made.thread.start()
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


async def test_a_turn_is_a_span_and_adds_to_the_metrics(collector: Collector) -> None:
    meter = make_meter(Settings(otlp_endpoint=collector.url), load_prices())
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    meter.record(turn(total_s=1.5, traceparent=f"00-{trace_id}-b7ad6b7169203331-01"))
    meter.record(turn(status=529, usage=None, traceparent="no context"))
    meter.record(turn(source=Source.HIT, total_s=0.5))  # whose tokens no upstream computed anew
    await meter.aclose()
    good, hit, bad = sorted(collector.spans(), key=lambda span: (span.status.code, span.trace_id.hex() != trace_id))
    assert attributes(hit)["sluice.answer"] == "hit"
    assert good.name == f"chat {MODEL}"
    assert good.trace_id.hex() == trace_id
    assert good.end_time_unix_nano - good.start_time_unix_nano == 1_500_000_000
    assert abs(good.start_time_unix_nano - AT_S * 1e9) < 1e6
    found = attributes(good)
    assert found["gen_ai.usage.input_tokens"] == 2000
    assert found["gen_ai.usage.cache_read.input_tokens"] == 1000
    assert found["gen_ai.usage.output_tokens"] == 100
    assert found["gen_ai.conversation.id"] == "c1"
    assert found["sluice.cost.untouched"] > found["sluice.cost"] > 0
    assert attributes(bad)["error.type"] == "529"
    metrics = collector.metrics()
    points = metrics["gen_ai.client.token.usage"].histogram.data_points
    assert sorted(point.sum for point in points) == [100, 2000]
    assert sum(point.count for point in metrics["gen_ai.client.operation.duration"].histogram.data_points) == 3
    assert metrics["sluice.cost"].sum.data_points[0].as_double == pytest.approx(found["sluice.cost"])


async def test_a_collector_that_is_not_there_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = make_telemetry("http://127.0.0.1:9")
    meter = make_meter(Settings(), load_prices(), [telemetry])
    for _ in range(10):
        meter.record(turn())
    await meter.flush()
    async with asyncio.timeout(60):
        await meter.aclose()


def test_nothing_of_ours_is_imported_unless_it_is_configured() -> None:
    # Libraries that we use bring in the API, and one the SDK's metrics, where they are installed.
    code = (
        "import sys, sluice.proxy.app\n"
        "sys.exit(any(name.startswith(('sluice.proxy.meter.telemetry', 'opentelemetry.exporter')) "
        "for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_it_is_not_installed_the_start_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"sluicegate\[otel\]"):
        make_meter(Settings(otlp_endpoint="http://127.0.0.1:4318"), load_prices())


@pytest.mark.parametrize("name", ["SLUICE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_the_endpoint_is_read_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://collector:4318")
    assert Settings().otlp_endpoint == "http://collector:4318"
