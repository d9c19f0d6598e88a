"""The compressor, called in process. It is given the client's bytes and nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sluice.compressor import OPENAI_CHAT, Compressor, CompressorSettings, MemoryStore, Mode
from sluice.compressor.profiles import PROFILES
from sluice.compressor.scoring import Scorer
from sluice.eval.policies.base import Forwarded, Hindsight, Request

TENANT = b"replay"
UPSTREAM = "http://recorder"


@dataclass(frozen=True, slots=True)
class Ours:
    """The compressor in one of its modes."""

    mode: Mode
    provider: str
    """Whose cache the compressor takes its upstream to have: a key of its `PROFILES`."""
    name: str
    settings: CompressorSettings | None = None
    """None: its own."""
    scorer: Scorer | None = None
    """None: the one that is shipped."""

    def open(self, hindsight: Hindsight) -> OursConversation:
        """See `Policy`; of hindsight nothing is used."""
        return OursConversation(self)


class OursConversation:
    """A compressor of its own for one conversation, with a clock that only pauses move on."""

    def __init__(self, ours: Ours) -> None:
        self._mode = ours.mode
        self._now_s = time.time()
        self._compressor = Compressor(
            MemoryStore(clock=lambda: self._now_s),
            ours.settings,
            profile=PROFILES[ours.provider],
            clock=lambda: self._now_s,
            scorer=ours.scorer,
        )

    async def forward(self, request: Request) -> Forwarded:
        """See `Conversation`."""
        self._now_s += request.pause_s
        begun = time.perf_counter()
        compressed = await self._compressor.compress(
            request.messages, dialect=OPENAI_CHAT, mode=self._mode, tenant=TENANT, upstream=UPSTREAM
        )
        overhead_ms = (time.perf_counter() - begun) * 1000
        return Forwarded(compressed.messages, overhead_ms=overhead_ms, bypass=compressed.bypass)
