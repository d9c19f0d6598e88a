"""Prompts out of recorded conversations: the places where an agent wrote text that it had read before.

A file holds one conversation a line, in OpenAI's chat form under `messages`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sluice.backend.bench.workload import Prompt
from sluice.backend.errors import BackendError

_MIN_CHARS = 150
_MIN_SHARE = 0.5
_NUM_CONTEXT_CHARS = 6000
_NUM_START_CHARS = 100


def recorded_edits(file: Path, num_tokens: int) -> list[Prompt]:
    """What the agent had read, then the beginning of what it wrote. Raises BackendError if the file holds no edit."""
    try:
        conversations = [msgspec.json.decode(line) for line in file.read_bytes().splitlines() if line.strip()]
        prompts = [prompt for one in conversations for prompt in _edits(one["messages"], num_tokens)]
    except (OSError, msgspec.DecodeError, LookupError, TypeError) as error:
        raise BackendError(f"{file} holds no conversations, one a line: {error!r}") from None
    if not prompts:
        raise BackendError(f"{file} holds no edit: no tool call that writes {_MIN_CHARS} characters that were read")
    return prompts


def _edits(messages: Sequence[Any], num_tokens: int) -> Iterator[Prompt]:
    read = ""
    for message in messages:
        if not isinstance(message, dict):
            continue
        for call in message.get("tool_calls") or ():
            function = call["function"]
            try:
                arguments = msgspec.json.decode(function["arguments"])
            except msgspec.DecodeError:  # a call without arguments, or one that was cut off
                continue
            values = arguments.values() if isinstance(arguments, dict) else ()
            written = "\n".join(value for value in values if isinstance(value, str))
            if len(written) >= _MIN_CHARS and _share_known(written, read) >= _MIN_SHARE:
                context = read[-_NUM_CONTEXT_CHARS:]
                start = function["arguments"][:_NUM_START_CHARS]
                yield Prompt(f"{context}\n\nCall of {function['name']}:\n{start}", num_tokens)
        content = message.get("content")
        if message.get("role") in ("tool", "user") and isinstance(content, str):
            read += f"\n{content}"


def _share_known(text: str, read: str) -> float:
    """Share of the lines of `text` that `read` has."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return sum(line in read for line in lines) / len(lines) if lines else 0.0
