"""What the routes of one proxy share: made at its start, closed at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sluice.compressor import Compressor, StateStore
from sluice.proxy.access import Access
from sluice.proxy.answers import Answers
from sluice.proxy.body import KnownBodies
from sluice.proxy.dashboard.watch import Watch
from sluice.proxy.meter import Meter, PriceTable, StatsReader
from sluice.proxy.metrics import Metrics
from sluice.proxy.search_tool import SearchTool
from sluice.proxy.settings import Settings
from sluice.proxy.tokens import TokenCounter
from sluice.proxy.upstreams import BackendStatus, Upstreams
from sluice.proxy.window import Windows

if TYPE_CHECKING:
    from sluice.compressor.scoring.neural.neural_scorer import NeuralScorer


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that routes work with."""

    settings: Settings
    store: StateStore
    compressor: Compressor
    apart_compressor: Compressor
    """On the same state; holds no conversations, as each message that it is given is one."""
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
    bodies: KnownBodies
    answers: Answers | None
    """The prompt cache; None where it is switched off."""
    search_tool: SearchTool | None = None
    """The tool that is added to requests; None where it is switched off."""
    scorer: NeuralScorer | None = None
    """The network that scores lines; None: features alone do."""
    backend: BackendStatus | None = None
    """What is known of the backend that this proxy runs; None: it runs none."""
    windows: Windows = field(default_factory=Windows)

    async def aclose(self) -> None:
        """Close what holds connections and threads."""
        self.counter.close()
        if self.scorer is not None:
            await self.scorer.aclose()
        await self.upstreams.aclose()
        await self.access.aclose()
        await self.meter.aclose()
        await self.watch.aclose()
        if self.answers is not None:
            await self.answers.aclose()
        await self.store.aclose()
