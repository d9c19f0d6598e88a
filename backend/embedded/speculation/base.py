"""The interface of what proposes tokens for one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Drafter(Protocol):
    """Proposes the next tokens of one sequence. Wrong ones cost time and change nothing."""

    def propose(self, tokens: Sequence[int], max_num_tokens: int) -> Sequence[int]:
        """Up to so many tokens that may follow `tokens`, which only grow from call to call."""
        ...

    def note(self, num_proposed: int, num_accepted: int) -> None:
        """Learn what became of the last proposal."""
        ...

    def close(self) -> None:
        """The sequence has ended: free what is held for it."""
        ...
