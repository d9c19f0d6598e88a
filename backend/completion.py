"""Runs one prompt through the engine and streams its text: detokenised, cut at stop strings, counted.

Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from sluice.backend.base import Engine, FinishReason, SamplingParams
from sluice.backend.detokenizer import Detokenizer, StopStrings
from sluice.backend.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class TextOutput:
    """A piece of text; the last one has the finish reason."""

    text: str
    usage: Usage
    """Tokens up to this piece."""
    finish_reason: FinishReason | None = None


async def stream_text(
    engine: Engine, tokenizer: Tokenizer, prompt: Sequence[int], params: SamplingParams, stops: Sequence[str]
) -> AsyncGenerator[TextOutput]:
    """Stream the continuation of `prompt` as text; closing the generator cancels the request.

    Raises as `Engine.generate`.
    """
    detokenizer, stop_strings = Detokenizer(tokenizer.decode), StopStrings(stops)
    num_output_tokens = 0
    async with aclosing(engine.generate(prompt, params)) as outputs:
        async for output in outputs:
            text, finish_reason = "", output.finish_reason
            for token in output.token_ids:
                num_output_tokens += 1
                text += stop_strings.push(detokenizer.push([token]))
                if stop_strings.hit:
                    break
            if stop_strings.hit:
                finish_reason = FinishReason.STOP
            elif finish_reason is not None:
                text += stop_strings.push(detokenizer.flush()) + stop_strings.flush()
            usage = Usage(len(prompt), output.num_cached_tokens, num_output_tokens)
            if text or finish_reason is not None:
                yield TextOutput(text, usage, finish_reason)
            if finish_reason is not None:
                return
