"""Tries what a start depends on before anything listens, so that a worker or a bound port is not where it is found out.

What a proxy can do without (a scorer, a search index on disk, Redis) is none of it: that is said, and served without.
"""

from __future__ import annotations

from sluice.proxy.access.keyring import FileKeys
from sluice.proxy.meter import load_prices
from sluice.proxy.record import record_file
from sluice.proxy.settings import Settings


def check_start(settings: Settings) -> None:
    """Check the files and packages that the settings name.

    Raises:
        ConfigError: one cannot be used; the message names the setting and what to do.
    """
    load_prices(settings.prices_file)
    if settings.record is not None:
        record_file(settings.record)
    if settings.keys_file is not None:
        FileKeys(settings.keys_file).list()
    if settings.otlp_endpoint is not None:
        from sluice.proxy.meter.telemetry import check_installed

        check_installed(settings.otlp_endpoint)
