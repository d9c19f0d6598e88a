"""Asks each decoding sequence's drafter for a draft, shorter ones the more sequences there are."""

from __future__ import annotations

from collections.abc import Sequence as Many

from sluice.backend.embedded.sequence import Sequence
from sluice.backend.embedded.speculation.base import Drafter
from sluice.backend.embedded.speculation.draft_model import DraftModel, ModelDrafter
from sluice.backend.embedded.speculation.first_of import FirstOf
from sluice.backend.embedded.speculation.prompt_lookup import PromptLookup


class Drafting:
    """The drafters of one engine's sequences; each is made when it is first asked."""

    def __init__(
        self, max_num_draft_tokens: int, max_num_drafting_tokens: int, draft_model: DraftModel | None = None
    ) -> None:
        """See `EngineConfig` for the limits: of one sequence's draft, and of a step with drafts."""
        self._max_num_draft_tokens = max_num_draft_tokens
        self._max_num_drafting_tokens = max_num_drafting_tokens
        self._draft_model = draft_model
        self._drafters: dict[Sequence, Drafter] = {}

    def propose(self, decoding: Many[Sequence]) -> None:
        """Give each sequence its draft for the next step."""
        if not decoding:
            return
        limit = min(self._max_num_draft_tokens, self._max_num_drafting_tokens // len(decoding) - 1)
        for sequence in decoding:
            num_tokens = min(limit, sequence.num_tokens_left - 1)
            if num_tokens > 0:
                drafter = self._drafters.get(sequence)
                if drafter is None:
                    drafter = self._drafters[sequence] = self._make(sequence)
                sequence.draft = drafter.propose(sequence.tokens, num_tokens)

    def note(self, sequence: Sequence, num_proposed: int, num_accepted: int) -> None:
        """Let the drafter learn what became of its last draft."""
        self._drafters[sequence].note(num_proposed, num_accepted)

    def close(self, sequence: Sequence) -> None:
        """Free what is held for a sequence that has ended."""
        if drafter := self._drafters.pop(sequence, None):
            drafter.close()

    def _make(self, sequence: Sequence) -> Drafter:
        """Copying costs next to nothing, so it goes before the draft model."""
        lookup = PromptLookup(sequence.texts)
        if self._draft_model is None:
            return lookup
        model = ModelDrafter(self._draft_model, sequence.params, sequence.seed, sequence.num_prompt_tokens)
        return FirstOf([lookup, model])
