"""Several drafters in order: the first that has something proposes."""

from __future__ import annotations

from collections.abc import Sequence

from sluice.backend.embedded.speculation.base import Drafter


class FirstOf:
    """Drafter for one sequence that asks others."""

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        self._drafters = drafters
        self._last: Drafter | None = None

    def propose(self, tokens: Sequence[int], max_num_tokens: int) -> Sequence[int]:
        """See `Drafter`."""
        for drafter in self._drafters:
            if proposed := drafter.propose(tokens, max_num_tokens):
                self._last = drafter
                return proposed
        return ()

    def note(self, num_proposed: int, num_accepted: int) -> None:
        """Tell the one whose proposal it was."""
        if self._last is not None:
            self._last.note(num_proposed, num_accepted)

    def close(self) -> None:
        """See `Drafter`."""
        for drafter in self._drafters:
            drafter.close()
