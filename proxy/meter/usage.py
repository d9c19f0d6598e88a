"""What a request used, by the upstream's own count, in one form for all providers. Knows no bytes and no prices.

The kinds of input are disjoint: together they are the whole prompt. What providers report differs:
- OpenAI (chat, completions, responses): `prompt_tokens`/`input_tokens` include what was read from the cache
  (`cached_tokens`) and what was written to it (`cache_write_tokens`, from GPT-5.6 on); reasoning is part of the output.
- Anthropic: `input_tokens` exclude both; writes are split by lifetime in `cache_creation`; thinking is part of the
  output. What a compaction within the request used stands in `iterations` only.
- DeepSeek: as OpenAI, with `prompt_cache_hit_tokens`; Moonshot: `cached_tokens` beside the others.
- Gemini's OpenAI surface and xAI: `completion_tokens` may leave reasoning out, `total_tokens` holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sluice.proxy.wire.types import WireName


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request, as the upstream counted them."""

    input_tokens: int = 0
    """Input that was neither read from the cache nor written to it."""
    cache_write_5m: int = 0
    """Input written to the cache for the provider's usual time (Anthropic: five minutes)."""
    cache_write_1h: int = 0
    """Input written to the cache for an hour (Anthropic)."""
    cache_read: int = 0
    """Input read from the cache."""
    output_tokens: int = 0
    """Output, reasoning included."""
    reasoning: int = 0
    """Output that was reasoning, where the upstream says so."""

    @property
    def num_prompt(self) -> int:
        """All input."""
        return self.input_tokens + self.cache_write_5m + self.cache_write_1h + self.cache_read


def usage_of(wire: WireName, fields: Mapping[str, Any]) -> Usage | None:
    """Read the `usage` object of an answer; None where it holds no count at all. Never raises.

    Args:
        wire: the format of the answer.
        fields: the object, or several of one answer laid over each other (`message_start`, `message_delta`).
    """
    return _anthropic(fields) if wire is WireName.MESSAGES else _openai(fields)


def _openai(fields: Mapping[str, Any]) -> Usage | None:
    prompt = _count(fields, "prompt_tokens", "input_tokens")
    output = _count(fields, "completion_tokens", "output_tokens")
    if prompt is None and output is None:
        return None
    prompt, output = prompt or 0, output or 0
    details = _object(fields, "prompt_tokens_details", "input_tokens_details")
    read = (
        _count(details, "cached_tokens")
        or _count(fields, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
        or 0
    )
    read = min(read, prompt)
    written = _count(details, "cache_write_tokens", "cache_creation_tokens") or 0
    written = min(written, prompt - read)
    total = _count(fields, "total_tokens") or 0
    reasoning = _count(_object(fields, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens") or 0
    if total > prompt + output and reasoning:
        output = total - prompt
    return Usage(
        input_tokens=prompt - read - written,
        cache_write_5m=written,
        cache_read=read,
        output_tokens=output,
        reasoning=min(reasoning, output),
    )


def _anthropic(fields: Mapping[str, Any]) -> Usage | None:
    total = _anthropic_sum(fields)
    iterations = fields.get("iterations")
    if isinstance(iterations, list):
        # What the request as a whole reports leaves out its compactions; each is billed as a request of its own.
        extra = [part for part in iterations if isinstance(part, dict) and part.get("type") == "compaction"]
        for part in extra:
            add = _anthropic_sum(part)
            if add is not None:
                total = add if total is None else plus(total, add)
    return total


def _anthropic_sum(fields: Mapping[str, Any]) -> Usage | None:
    plain, output = _count(fields, "input_tokens"), _count(fields, "output_tokens")
    if plain is None and output is None:
        return None
    by_life = _object(fields, "cache_creation")
    written = _count(fields, "cache_creation_input_tokens") or 0
    hour = _count(by_life, "ephemeral_1h_input_tokens") or 0
    minutes = _count(by_life, "ephemeral_5m_input_tokens") or 0
    # Where only the sum is given, or it was raised later than its parts, the rest has the usual lifetime.
    minutes = max(minutes, written - hour)
    details = _object(fields, "output_tokens_details")
    return Usage(
        input_tokens=plain or 0,
        cache_write_5m=minutes,
        cache_write_1h=hour,
        cache_read=_count(fields, "cache_read_input_tokens") or 0,
        output_tokens=output or 0,
        reasoning=min(_count(details, "thinking_tokens", "reasoning_tokens") or 0, output or 0),
    )


def plus(one: Usage, other: Usage) -> Usage:
    """The sum of two, kind by kind."""
    return Usage(*(getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__))


def _count(fields: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that holds a count."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
            return int(value)
    return None


def _object(fields: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        if isinstance(value := fields.get(name), dict):
            return value
    return {}
