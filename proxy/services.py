"""What the routes of one proxy share: made at its start, closed at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from sluice.compressor import Compressor, StateStore
from sluice.proxy.access import Access
from sluice.proxy.answers import Answers
from sluice.proxy.dashboard.watch import Watch
from sluice.proxy.meter import Meter, PriceTable, StatsReader
from sluice.proxy.metrics import Metrics
from sluice.proxy.settings import Settings
from sluice.proxy.tokens import TokenCounter
from sluice.proxy.upstreams import Upstreams
from sluice.proxy.window import Windows


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that routes work with."""

    settings: Settings
    store: StateStore
    compressor: Compressor
    dry_compressor: Compressor
    """Says what would be forwarded, and freezes nothing."""
    upstreams: Upstreams
    counter: TokenCounter
    metrics: Metrics
    access: Access
    prices: PriceTable
    meter: Meter
    stats: StatsReader
    watch: Watch
    answers: Answers | None
    """The prompt cache; None where it is switched off."""
    windows: Windows = field(default_factory=Windows)

    async def aclose(self) -> None:
        """Close what holds connections and threads."""
        self.counter.close()
        await self.upstreams.aclose()
        await self.access.aclose()
        await self.meter.aclose()
        await self.watch.aclose()
        if self.answers is not None:
            await self.answers.aclose()
        await self.store.aclose()
