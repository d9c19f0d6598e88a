"""One sequence: its tokens, how far they are computed, and the blocks that hold their keys and values.

Knows no model; the scheduler and the block manager change it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from sluice.backend.base import Constraint, SamplingParams


@dataclass(eq=False, slots=True, repr=False)
class Sequence:
    """A prompt and its growing continuation."""

    sequence_id: int
    """Rises with arrival: the smaller is the older, and goes first."""
    tokens: list[int]
    """Prompt and output."""
    params: SamplingParams
    seed: int = 0
    """Of the sequence's own random numbers."""
    constraint: Constraint | None = None
    """What its output is held to, as far as its tokens go."""
    texts: Tokens[Tokens[int]] = ()
    """What its output may repeat, beside its own tokens."""
    max_output_tokens: int = sys.maxsize
    stop_token_ids: frozenset[int] = frozenset()
    """Any of them ends it, and is not part of the output."""
    num_prompt_tokens: int = field(init=False)
    num_computed_tokens: int = 0
    """Leading tokens whose keys and values are in the cache."""
    num_cached_tokens: int = 0
    """Of the prompt, how many were found in the cache when the sequence was first admitted."""
    num_preemptions: int = 0
    block_table: array[int] = field(default_factory=lambda: array("i"))
    """Blocks of the cache, in order of the tokens; an array, as long ones go to the device at each step."""
    block_hashes: list[bytes] = field(default_factory=list)
    """Chained hashes of the leading full blocks, as far as they were needed."""
    num_registered_blocks: int = 0
    """Leading blocks that other sequences can find."""
    draft: Tokens[int] = ()
    """Proposed next tokens, to be verified in the next step."""

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.tokens)

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_tokens_left(self) -> int:
        """Tokens that it may still generate."""
        return self.max_output_tokens - self.num_output_tokens

    @property
    def num_pending_tokens(self) -> int:
        """Tokens that are known but not computed; 1 when the sequence is decoding."""
        return len(self.tokens) - self.num_computed_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether all but the newest token are computed."""
        return self.num_pending_tokens == 1
