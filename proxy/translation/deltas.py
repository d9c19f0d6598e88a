"""An answer in pieces, in no wire format: what readers make of an upstream's answer and writers render.

Whole and streamed answers go through the same pieces, so that they cannot come to differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stop(StrEnum):
    """Why the model stopped."""

    END = "end"
    SEQUENCE = "sequence"
    """A stop sequence of the caller's."""
    LENGTH = "length"
    CALLS = "calls"
    """It waits for the results of its calls."""
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class Begin:
    """The answer has begun."""

    model: str
    """The model that answers, by the upstream's name."""


@dataclass(frozen=True, slots=True)
class Text:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """More text, of a refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """More of what the model thought."""

    text: str
    field: str = "reasoning_content"
    """The field of the chat format that it came in, and has to go back in."""


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A tool call has begun."""

    index: int
    """Tells calls of one answer apart."""
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments: a piece of JSON text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the answer took so far; a later one replaces it."""

    num_prompt: int = 0
    """All tokens of the prompt, those from the cache included."""
    num_cached: int = 0
    """Those read from the upstream's cache."""
    num_written: int = 0
    """Those written to it, where the upstream says so."""
    num_output: int = 0
    num_thinking: int = 0
    """The part of the output that was thought."""


@dataclass(frozen=True, slots=True)
class End:
    """The model has stopped."""

    stop: Stop
    sequence: str | None = None
    """The stop sequence that it met, where the upstream says which."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The upstream reports an error in place of an answer, or in the middle of one."""

    message: str
    status: int
    """HTTP status; of an error in a stream, the status that it would have had."""
    code: str | None = None
    """OpenAI's code, where there is one that matters to clients."""
    type: str | None = None
    """OpenAI's type, where the upstream speaks OpenAI's format."""
    param: str | None = None


Delta = Begin | Text | Refusal | Thinking | CallBegin | CallArguments | Tokens | End | Fault
