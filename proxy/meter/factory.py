"""Makes the meter that the settings ask for."""

from __future__ import annotations

from collections.abc import Sequence

from sluice.proxy.meter.meter import Exporter, Meter
from sluice.proxy.meter.prices import PriceTable
from sluice.proxy.settings import Settings

_MIN_TIMEOUT_S = 2.0
"""Nobody waits for the meter, and what it reads for people is more than a request's state."""


def make_meter(settings: Settings, prices: PriceTable, exporters: Sequence[Exporter] = ()) -> Meter:
    """Make the meter.

    Args:
        settings: of the proxy.
        prices: of the models.
        exporters: where turns are sent on to, beside OpenTelemetry where that is configured.

    Raises:
        ConfigError: OpenTelemetry is configured and not installed.
    """
    exporters = [*exporters]
    if settings.otlp_endpoint is not None:
        from sluice.proxy.meter.telemetry import make_telemetry

        exporters.append(make_telemetry(settings.otlp_endpoint))
    store = None
    if settings.redis_url is not None:
        from sluice.proxy.meter.redis_store import RedisMeterStore

        timeout_s = max(_MIN_TIMEOUT_S, settings.redis_timeout_s)
        store = RedisMeterStore(settings.redis_url.get_secret_value(), timeout_s=timeout_s)
    return Meter(prices, store, exporters=exporters)
