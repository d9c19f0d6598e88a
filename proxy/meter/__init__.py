"""What requests used, what they cost, and what they would have cost untouched. Keeps counts and ids, never content."""

from sluice.proxy.meter.factory import make_meter
from sluice.proxy.meter.meter import CLIENT_GONE_STATUS, Meter
from sluice.proxy.meter.prices import PriceTable, load_prices
from sluice.proxy.meter.reader import UsageReader, reader_for
from sluice.proxy.meter.stats_reader import StatsReader
from sluice.proxy.meter.turn import Arm, Source, Turn
from sluice.proxy.meter.usage import Usage

__all__ = [
    "CLIENT_GONE_STATUS",
    "Arm",
    "Meter",
    "PriceTable",
    "Source",
    "StatsReader",
    "Turn",
    "Usage",
    "UsageReader",
    "load_prices",
    "make_meter",
    "reader_for",
]
