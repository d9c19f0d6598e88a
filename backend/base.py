"""The engine's interface: token ids in, a stream of token ids out.

Knows neither tokenizers nor HTTP; stop strings, chat templates and text are its caller's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sluice.backend.errors import RequestError
from sluice.backend.histogram import Histogram


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """A stop token came (the token itself is not part of the output)."""
    LENGTH = "length"
    """`max_tokens` or the model's window is used up."""


class Constraint(Protocol):
    """Which tokens one sequence may have next."""

    @property
    def failure(self) -> RequestError | None:
        """Why it can hold the sequence no longer; None while it can."""
        ...

    def allowed(self, draft: Sequence[int]) -> list[bytes]:
        """For the next position and the one behind each draft token: a byte per token, 0 where it may not come.

        Changes nothing; what is said behind a draft token that may not come does not matter.
        """
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """The sequence now has these tokens too."""
        ...


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next tokens are chosen.

    In this order: penalties and bias, then temperature, then min-p, top-k and top-p.
    """

    n: int = 1
    """Continuations of the one prompt."""
    max_tokens: int | None = None
    """Most tokens to generate; None: as many as the window holds."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Smallest set of tokens whose probabilities reach this sum; 1 keeps all."""
    top_k: int = 0
    """Most probable tokens to keep; 0 keeps all."""
    min_p: float = 0.0
    """Tokens at least this probable, as a share of the most probable one's; 0 keeps all."""
    presence_penalty: float = 0.0
    """Taken off the logit of each token that the output has."""
    frequency_penalty: float = 0.0
    """Taken off the logit of a token for each time the output has it."""
    repetition_penalty: float = 1.0
    """Logits of tokens in prompt or output are divided by it if positive, else multiplied (arXiv 1909.05858)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these tokens."""
    seed: int | None = None
    """Same seed, prompt and parameters: same output. None draws freely."""
    num_logprobs: int | None = None
    """Report the log-probability of each token, and of this many most probable ones; None reports none."""
    stop_token_ids: frozenset[int] = frozenset()
    """Ends the sequence, beside the model's own end tokens."""
    make_constraint: Callable[[], Constraint] | None = None
    """Makes what holds each continuation to a form; None: anything goes."""
    ignore_end: bool = False
    """The model's own end tokens do not end the sequence (for measurements)."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one position, by the model itself: before bias, penalties and temperature."""

    logprob: float
    """Of the chosen token."""
    top: tuple[tuple[int, float], ...]
    """Most probable tokens with theirs."""


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """What one step brought to one continuation."""

    token_ids: tuple[int, ...]
    """New tokens in order; may be empty in the last output."""
    finish_reason: FinishReason | None = None
    """Set in the continuation's last output alone."""
    num_cached_tokens: int = 0
    """Tokens of the prompt whose keys and values were reused."""
    index: int = 0
    """Which of the `n` continuations."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """One for each token, where they are asked for."""


@dataclass(slots=True)
class EngineStats:
    """What an engine has done since it began, and what it does now."""

    num_running: int = 0
    """Sequences that are computed."""
    num_waiting: int = 0
    """Sequences that wait for room."""
    num_blocks: int = 0
    """Blocks of the cache."""
    block_size: int = 0
    """Tokens of a block."""
    num_blocks_in_use: int = 0
    """Blocks that a sequence holds now."""
    prompt_tokens_total: int = 0
    """Tokens of prompts that were admitted."""
    cached_tokens_total: int = 0
    """Tokens of them that were found in the cache."""
    output_tokens_total: int = 0
    """Tokens generated."""
    draft_tokens_total: int = 0
    """Tokens proposed by speculation."""
    accepted_tokens_total: int = 0
    """Tokens of them that the model agreed with."""
    preemptions_total: int = 0
    """Sequences sent back to wait for want of blocks."""
    steps_total: int = 0
    """Forward passes."""
    ttft: Histogram = field(default_factory=Histogram)
    """From a request's arrival to its first token."""
    itl: Histogram = field(default_factory=Histogram)
    """From token to token; tokens that come together share the time."""


class Engine(Protocol):
    """Generates tokens for many callers at once."""

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and output may have together."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether it takes requests."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        ...

    def check(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """Raises what `generate` would before it generates: what is wrong with the request, and that it is too much."""
        ...

    def stats(self) -> EngineStats:
        """Figures for monitoring; cheap."""
        ...

    def generate(
        self, prompt: Sequence[int], params: SamplingParams, drafts: Sequence[Sequence[int]] = ()
    ) -> AsyncGenerator[TokenOutput]:
        """Stream the `n` continuations of `prompt`; closing the generator cancels them.

        `drafts` are texts that the output may repeat; they make it faster and change nothing else.
        Raises ContextLengthError, InvalidRequestError, EngineOverloadedError, EngineClosedError, EngineError.
        """
        ...

    async def aclose(self) -> None:
        """End all requests and free what the engine holds. Idempotent."""
        ...
