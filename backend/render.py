"""OpenAI's response shapes, for chat and for plain completions: whole bodies and stream chunks.

Plain functions of what the engine brought; knows no HTTP.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sluice.backend.base import TokenLogprobs
from sluice.backend.completion import TextOutput, ToolCall, Usage

Logprobs = Sequence[tuple[int, TokenLogprobs]]


@dataclass(frozen=True, slots=True)
class Renderer:
    """Shapes of one answer."""

    model: str
    is_chat: bool
    has_logprobs: bool
    decode: Callable[[Sequence[int]], str]
    """Tokens to text, for the names of tokens in log-probabilities."""
    created_s: int = field(default_factory=lambda: int(time.time()))
    key: str = field(default_factory=lambda: secrets.token_hex(12))

    def body(self, outputs: Sequence[TextOutput], num_choices: int) -> dict[str, Any]:
        """The whole answer out of all its pieces."""
        choices = []
        for index in range(num_choices):
            pieces = [output for output in outputs if output.index == index]
            text = "".join(piece.text for piece in pieces)
            content: dict[str, Any] = {"text": text}
            if self.is_chat:
                calls = [call for piece in pieces for call in piece.tool_calls]
                message = {"role": "assistant", "content": text or None if calls else text}
                content = {"message": message | ({"tool_calls": _tool_calls(calls)} if calls else {})}
            logprobs = [item for piece in pieces for item in piece.logprobs]
            choices.append(self._choice(index, content, logprobs, pieces[-1].finish_reason))
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(outputs[-1].usage)}

    def first_chunk(self, index: int) -> dict[str, Any]:
        """Says who speaks, before there is text."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, (), None)

    def chunk(self, output: TextOutput) -> dict[str, Any]:
        """A piece of text."""
        content: dict[str, Any] = {"text": output.text}
        if self.is_chat:
            delta: dict[str, Any] = {"content": output.text} if output.text else {}
            if output.tool_calls:
                calls = _tool_calls(output.tool_calls)
                delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
            content = {"delta": delta}
        return self._chunk(output.index, content, output.logprobs, output.finish_reason)

    def usage_chunk(self, last: Usage) -> dict[str, Any]:
        """The end of a stream whose caller wants to know its tokens."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(last)}

    def _chunk(self, index: int, content: dict[str, Any], logprobs: Logprobs, reason: str | None) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [self._choice(index, content, logprobs, reason)]}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix, name = ("chatcmpl", kind) if self.is_chat else ("cmpl", "text_completion")
        return {"id": f"{prefix}-{self.key}", "object": name, "created": self.created_s, "model": self.model}

    def _choice(self, index: int, content: dict[str, Any], logprobs: Logprobs, reason: str | None) -> dict[str, Any]:
        rendered = (self._chat_logprobs if self.is_chat else self._plain_logprobs)(logprobs)
        return {"index": index, **content, "logprobs": rendered, "finish_reason": reason}

    def _chat_logprobs(self, logprobs: Logprobs) -> dict[str, Any] | None:
        if not self.has_logprobs:
            return None

        def entry(token: int, logprob: float) -> dict[str, Any]:
            text = self.decode([token])
            # Half a character has no text of its own, and so no bytes that could be told from it.
            return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}

        content = [
            {**entry(token, item.logprob), "top_logprobs": [entry(*pair) for pair in item.top]}
            for token, item in logprobs
        ]
        return {"content": content, "refusal": None}

    def _plain_logprobs(self, logprobs: Logprobs) -> dict[str, Any] | None:
        if not self.has_logprobs:
            return None
        return {
            "tokens": [self.decode([token]) for token, _ in logprobs],
            "token_logprobs": [item.logprob for _, item in logprobs],
            "top_logprobs": [{self.decode([token]): value for token, value in item.top} for _, item in logprobs],
        }


def _tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def usage(last: Usage) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": last.num_prompt_tokens,
        "completion_tokens": last.num_output_tokens,
        "total_tokens": last.num_prompt_tokens + last.num_output_tokens,
        "prompt_tokens_details": {"cached_tokens": last.num_cached_tokens},
    }
