"""Runs one prompt through the engine and streams its text: detokenised, cut at stop strings, counted.

Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from sluice.backend.base import Engine, FinishReason, SamplingParams, TokenLogprobs, TokenOutput
from sluice.backend.detokenizer import Detokenizer, StopStrings
from sluice.backend.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    """Of all continuations."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the caller's tools."""

    name: str
    arguments: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class TextOutput:
    """A piece of one continuation's text; its last one has the finish reason."""

    index: int
    """Which continuation."""
    text: str
    usage: Usage
    """Tokens up to this piece."""
    finish_reason: str | None = None
    """As OpenAI words it: `stop`, `length` or `tool_calls`."""
    logprobs: tuple[tuple[int, TokenLogprobs], ...] = ()
    """Of the tokens since the last piece, where they are asked for."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls that the text turned out to be, instead of it."""


@dataclass(slots=True)
class _Continuation:
    detokenizer: Detokenizer
    stop_strings: StopStrings
    finish_reason: FinishReason | None = None
    logprobs: list[tuple[int, TokenLogprobs]] = field(default_factory=list)

    def push(self, output: TokenOutput) -> tuple[str, int]:
        """Take new tokens; returns the text that is certain and how many of the tokens count."""
        text, num_tokens = "", 0
        for number, token in enumerate(output.token_ids):
            num_tokens += 1
            if output.logprobs:
                self.logprobs.append((token, output.logprobs[number]))
            text += self.stop_strings.push(self.detokenizer.push([token]))
            if self.stop_strings.hit:
                self.finish_reason = FinishReason.STOP
                return text, num_tokens
        if output.finish_reason is not None:
            text += self.stop_strings.push(self.detokenizer.flush())
            self.finish_reason = FinishReason.STOP if self.stop_strings.hit else output.finish_reason
            text += self.stop_strings.flush()
        return text, num_tokens


async def stream_text(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    params: SamplingParams,
    stops: Sequence[str],
    drafts: Sequence[str] = (),
) -> AsyncGenerator[TextOutput]:
    """Stream the continuations of `prompt` as text; closing the generator cancels the request.

    `drafts` are texts that the output may repeat. Raises as `Engine.generate`.
    """
    continuations = [_Continuation(Detokenizer(tokenizer.decode), StopStrings(stops)) for _ in range(params.n)]
    num_output_tokens = 0
    texts = [await asyncio.to_thread(tokenizer.encode, draft) for draft in drafts]
    async with aclosing(engine.generate(prompt, params, texts)) as outputs:
        async for output in outputs:
            one = continuations[output.index]
            if one.finish_reason is not None:  # a stop string came earlier; the engine knows only token ids
                continue
            text, num_tokens = one.push(output)
            num_output_tokens += num_tokens
            if text or one.finish_reason is not None:
                usage = Usage(len(prompt), output.num_cached_tokens, num_output_tokens)
                yield TextOutput(output.index, text, usage, one.finish_reason, tuple(one.logprobs))
                one.logprobs.clear()
            if all(other.finish_reason is not None for other in continuations):
                return
