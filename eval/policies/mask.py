"""Observation masking: on every turn, tool results older than the last N are placeholders.

What the simplest tools do. Each turn rewrites one more message near the end of the prefix, so the cache breaks there.
"""

from __future__ import annotations

from dataclasses import dataclass

from sluice.eval.data import Trace
from sluice.eval.policies.base import Forwarded, Hindsight, Request
from sluice.eval.policies.content import PLACEHOLDER, replace_content


@dataclass(frozen=True, slots=True)
class Mask:
    """Results older than the last `num_kept` become a placeholder."""

    num_kept: int
    name: str

    def open(self, hindsight: Hindsight) -> MaskConversation:
        """See `Policy`."""
        return MaskConversation(hindsight.trace, self.num_kept)


class MaskConversation:
    """Masking at work on one conversation."""

    def __init__(self, trace: Trace, num_kept: int) -> None:
        self._trace = trace
        self._num_kept = num_kept
        self._masked: dict[bytes, bytes] = {}

    async def forward(self, request: Request) -> Forwarded:
        """See `Conversation`."""
        results = [position for position, index in enumerate(request.indexes) if index in self._trace.results]
        messages = list(request.messages)
        for position in results[: max(0, len(results) - self._num_kept)]:
            raw = messages[position]
            if raw not in self._masked:
                self._masked[raw] = replace_content(raw, PLACEHOLDER)
            messages[position] = self._masked[raw]
        return Forwarded(messages)
