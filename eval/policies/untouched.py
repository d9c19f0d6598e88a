"""What the agent would have sent without us: the side that all others are measured against."""

from __future__ import annotations

from sluice.eval.policies.base import Forwarded, Hindsight, Request


class Untouched:
    """Forwards the client's bytes."""

    name = "untouched"

    def open(self, hindsight: Hindsight) -> Untouched:
        """See `Policy`; it has no state."""
        return self

    async def forward(self, request: Request) -> Forwarded:
        """See `Conversation`."""
        return Forwarded(request.messages)
