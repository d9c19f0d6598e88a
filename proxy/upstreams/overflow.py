"""Recognises the answer that says that a request does not fit the model's context. Knows no sockets.

Providers and servers agree on no code and no wording; what is known here is what they were seen to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

OVERFLOW_STATUSES = frozenset({400, 413, 422})
"""Statuses under which upstreams say that a request is too long."""
_STATUSES = OVERFLOW_STATUSES | {500}
"""The same, and what stands for the status of an error in a stream, which has none of its own."""
_MAX_CHARS = 64 * 1024

_NUMBER = r"(?P<limit>\d[\d,_]{0,15})"
_SAYS_LIMIT = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        # OpenAI, DeepSeek, vLLM, SGLang, OpenRouter
        rf"maximum context length (?:is|of) {_NUMBER}",
        # Anthropic
        rf"prompt is too long: [\d,]+ tokens > {_NUMBER} maximum",
        rf"exceed context limit: [\d,]+ \+ [\d,]+ > {_NUMBER}",
        # Gemini
        rf"input token count \(?[\d,]+\)? exceeds the maximum number of tokens allowed \(?{_NUMBER}",
        # vLLM
        rf"longer than the maximum model length of {_NUMBER}",
        # SGLang, Together
        rf"longer than the model's context length \(?(?:of )?{_NUMBER}",
        # TensorRT-LLM
        rf"should not exceed max_(?:num_tokens|seq_len|input_len) \(?{_NUMBER}",
        # llama.cpp
        rf"exceeds the available context size \({_NUMBER} tokens\)",
        rf"^n_ctx: {_NUMBER}$",
        # TGI
        rf"`inputs` tokens \+ `max_new_tokens` must be <= {_NUMBER}",
        rf"`inputs` must have less than {_NUMBER} tokens",
        # xAI, Copilot, Mistral
        rf"maximum prompt length is {_NUMBER}",
        rf"prompt token count of [\d,]+ exceeds the limit of {_NUMBER}",
        rf"too large for model with {_NUMBER} maximum context length",
    )
)
_SAYS_SO = re.compile(
    "|".join(
        (
            r"context_length_exceeded",
            r"context[ _]window[ _]exceeded",
            r"exceed_context_size_error",
            r"prompt is too long",
            r"prompt too long; exceeded",  # Ollama
            r"exceeds the available context size",
            r"maximum context length",
            r"input is too long for requested model",  # Bedrock
            r"longer than the model's context length",
            r"exceeds? (?:the )?(?:model's )?(?:maximum )?context (?:length|size|limit|window)",
            r"too many tokens(?!, please wait)",  # Cohere; the rest of that is a rate limit's
            r"reduce the length of the (?:messages|input prompt)",
            r"session_len",  # LMDeploy
            r"greater than the context length",  # LM Studio
        )
    ),
    re.IGNORECASE,
)


def is_context_overflow(status: int, body: bytes) -> int | None:
    """Whether an answer says that the request does not fit the model's context.

    Args:
        status: HTTP status of the answer.
        body: its body, not compressed; of each text in it the first 64k characters are looked at.

    Returns:
        How many tokens the model takes in all; 0 where the answer does not say; None where it says something else.
    """
    try:
        return overflow_of(status, msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return overflow_of(status, body.decode("utf-8", "replace"))


def overflow_of(status: int, error: object) -> int | None:
    """Say the same of an error's JSON, decoded, or of its text."""
    if status not in _STATUSES:
        return None
    text = "\n".join(said[:_MAX_CHARS] for said in _said(error))
    for pattern in _SAYS_LIMIT:
        if (match := pattern.search(text)) is not None:
            return int(match["limit"].replace(",", "").replace("_", ""))
    return 0 if _SAYS_SO.search(text) is not None else None


def _said(error: object) -> Iterator[str]:
    """What an error itself says: its own fields, not what it may quote of the request further down."""
    for outer in error if isinstance(error, list) else (error,):  # Gemini wraps its error in a list
        nested = outer.get("error", outer) if isinstance(outer, dict) else outer
        for level in (outer, nested):
            for key, value in level.items() if isinstance(level, dict) else (("", level),):
                if isinstance(value, str):
                    yield value
                elif isinstance(value, int):
                    yield f"{key}: {value}"
