"""How many tokens to propose, after what was accepted: more after success, fewer after failure."""

from __future__ import annotations

from dataclasses import dataclass

_GREATEST = 64


@dataclass(slots=True)
class AdaptiveLength:
    """Length of one sequence's next proposal."""

    tokens: int = 4
    least: int = 2

    def note(self, num_proposed: int, num_accepted: int) -> None:
        """Learn what became of a proposal."""
        if num_accepted < num_proposed:
            self.tokens = max(self.least, num_accepted + 1 if num_accepted else self.tokens // 2)
        elif num_proposed >= self.tokens:
            self.tokens = min(self.tokens * 2, _GREATEST)
