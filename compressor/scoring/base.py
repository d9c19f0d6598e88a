"""What a scorer is: something that says of each line of a tool result how likely the agent will need it.

Knows no model. Scores rank lines for the planner; nothing is dropped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from sluice.compressor.evidence import Evidence, SegmentEvidence

HEADS = ("line", "word")
"""What models predict: that the line is quoted later, that a name which it alone shows is needed later."""


class Moment(StrEnum):
    """When lines are scored."""

    ARRIVAL = "arrival"
    """The segments belong to the newest message; what is visible above them stays."""
    EPOCH = "epoch"
    """The history is rewritten: of several copies of a fact the newest one counts."""


class Scorer(Protocol):
    """Scores lines."""

    def for_turn(self) -> Scorer:
        """This scorer for one request, so that what takes time can be bounded over all that is scored in it."""
        ...

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        """For each segment the keep probability of each line, in [0, 1].

        It is the expected loss, in facts, if the line goes: of the line itself, of the names that it alone still
        shows, and of the surroundings of its neighbours' names. One that is exactly 0 loses nothing that is known of.

        Args:
            evidence: the conversation so far, the segments included.
            segments: of that conversation.
            moment: see `Moment`.
        """
        ...
