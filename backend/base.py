"""The engine's interface: token ids in, a stream of token ids out.

Knows neither tokenizers nor HTTP; stop strings, chat templates and text are its caller's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """A stop token came (the token itself is not part of the output)."""
    LENGTH = "length"
    """`max_tokens` or the model's window is used up."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next tokens are chosen."""

    max_tokens: int | None = None
    """Most tokens to generate; None: as many as the window holds."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Smallest set of tokens whose probabilities reach this sum; 1 keeps all."""
    seed: int | None = None
    """Same seed, prompt and parameters: same output. None draws freely."""
    stop_token_ids: frozenset[int] = frozenset()
    """Ends the sequence, beside the model's own end tokens."""


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """What one step brought."""

    token_ids: tuple[int, ...]
    """New tokens in order; may be empty in the last output."""
    finish_reason: FinishReason | None = None
    """Set in the last output alone."""
    num_cached_tokens: int = 0
    """Tokens of the prompt whose keys and values were reused."""


class Engine(Protocol):
    """Generates tokens for many callers at once."""

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and output may have together."""
        ...

    def generate(self, prompt: Sequence[int], params: SamplingParams) -> AsyncGenerator[TokenOutput]:
        """Stream the continuation of `prompt`; closing the generator cancels the request.

        Raises ContextLengthError, InvalidRequestError, EngineClosedError, EngineError at the first step.
        """
        ...

    async def aclose(self) -> None:
        """End all requests and free what the engine holds. Idempotent."""
        ...
