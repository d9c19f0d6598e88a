"""Which lines are worth their tokens: the interface, and the judge of mode `safe`, who keeps all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sluice.compressor.conversation import Conversation, Incoming
from sluice.compressor.settings import CompressorSettings


@dataclass(frozen=True, slots=True)
class Keep:
    """What is thought of the lines of one text."""

    is_worth: Sequence[bool]
    """For each line whether it is worth its tokens."""
    losses: Sequence[float] = ()
    """For each line the facts that its loss would cost; empty where lines were not scored."""

    def score(self, start: int, stop: int) -> float | None:
        """The highest loss among lines `start` to `stop` (exclusive), to four digits; None where none was scored."""
        return round(float(max(self.losses[start:stop])), 4) if len(self.losses) else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of one old message is to stay."""

    num_shed_tokens: float
    """By how many tokens the message shrinks, once the other lines are dropped: of its judged texts alone."""
    keep: Mapping[int, Keep]
    """By index of the text."""


class Judge(Protocol):
    """Judges the lines of tool results."""

    def for_turn(self) -> Judge:
        """This judge for one request, so that what takes time can be bounded over all that it is asked in it."""
        ...

    def at_arrival(self, conversation: Conversation, incoming: Incoming) -> Mapping[int, Keep]:
        """What of the message received last is worth sending at all, by index of the text; what is not named stays.

        Depends on the messages before it, so that the same prefix gives the same answer in every process; and, where a
        model scores, on whether it did in time (see `scoring/neural/neural_scorer.py`).
        """
        ...

    def new_conversation(self, settings: CompressorSettings) -> Conversation:
        """An empty conversation that holds what this judge looks at."""
        ...

    def candidates(self, conversation: Conversation) -> Sequence[int]:
        """Indexes of the messages that may be judged anew. Cheap: asked on every turn."""
        ...

    def at_epoch(
        self, conversation: Conversation, indexes: Sequence[int], num_tokens_to_shed: float
    ) -> Mapping[int, Verdict]:
        """What of old messages is still worth its tokens, now that it is known what the agent did with them.

        Args:
            conversation: as it is forwarded.
            indexes: the messages to judge.
            num_tokens_to_shed: by how many tokens they have to shrink, be it worth it or not, the least valuable first.
        """
        ...


class KeepAll:
    """Every line is worth its tokens."""

    def for_turn(self) -> KeepAll:
        """See `Judge`."""
        return self

    def at_arrival(self, conversation: Conversation, incoming: Incoming) -> Mapping[int, Keep]:
        """See `Judge`."""
        return {}

    def new_conversation(self, settings: CompressorSettings) -> Conversation:
        """See `Judge`."""
        return Conversation(settings.min_run_lines)

    def candidates(self, conversation: Conversation) -> Sequence[int]:
        """See `Judge`."""
        return ()

    def at_epoch(
        self, conversation: Conversation, indexes: Sequence[int], num_tokens_to_shed: float
    ) -> Mapping[int, Verdict]:
        """See `Judge`."""
        return {}
