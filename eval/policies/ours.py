"""The compressor, called in process. It is given the client's bytes and nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sluice.compressor import OPENAI_CHAT, Compressor, MemoryStore, Mode
from sluice.eval.policies.base import Forwarded, Hindsight, Request

TENANT = b"replay"
UPSTREAM = "http://recorder"


@dataclass(frozen=True, slots=True)
class Ours:
    """The compressor in one of its modes."""

    mode: Mode

    @property
    def name(self) -> str:
        """The mode's."""
        return self.mode.value

    def open(self, hindsight: Hindsight) -> OursConversation:
        """See `Policy`; of hindsight nothing is used."""
        return OursConversation(self.mode)


class OursConversation:
    """A compressor of its own for one conversation, with a clock that recorded pauses move on."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._paused_s = 0.0
        self._compressor = Compressor(MemoryStore(clock=lambda: time.monotonic() + self._paused_s))

    async def forward(self, request: Request) -> Forwarded:
        """See `Conversation`."""
        self._paused_s += request.pause_s
        begun = time.perf_counter()
        compressed = await self._compressor.compress(
            request.messages, dialect=OPENAI_CHAT, mode=self._mode, tenant=TENANT, upstream=UPSTREAM
        )
        overhead_ms = (time.perf_counter() - begun) * 1000
        return Forwarded(compressed.messages, overhead_ms=overhead_ms, bypass=compressed.bypass)
