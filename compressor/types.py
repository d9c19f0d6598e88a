"""Shapes that the compressor's modules share: the neutral transcript and what becomes of it.

Imports nothing of ours at run time. Knows no dialect, no HTTP and no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sluice.compressor.ledger import Rendition

Role = Literal["system", "user", "assistant", "tool"]
"""A message's author. OpenAI's `developer` reads as `system`, its legacy `function` as `tool`."""


class Mode(StrEnum):
    """How much the compressor may drop."""

    OFF = "off"
    """The client's bytes go out as they came."""
    SAFE = "safe"
    """Drops only what is still visible elsewhere in the forwarded request."""
    BALANCED = "balanced"
    """Also drops lines that are judged not to be needed."""
    AGGRESSIVE = "aggressive"
    """The same, more boldly: a saved token is worth more loss."""


Bypass = Literal["error", "state", "timeout"]
"""Why a request is not compressed, or in part: a fault of ours, the state store, no more time."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that an assistant message makes."""

    id: str
    name: str
    arguments: str
    """JSON text, as the model wrote it: it may be malformed."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a message, in the order in which the model reads it."""

    text: str
    call_id: str | None = None
    """The call that this text answers; None for prose and for results that name no call."""
    is_result: bool = False
    """Whether it is tool output, and so may be compressed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the neutral transcript: what a dialect adapter made of the client's JSON."""

    role: Role
    texts: tuple[Text, ...]
    calls: tuple[ToolCall, ...]
    identity: bytes
    """16-byte digest of the message less what clients move about from turn to turn (`cache_control`)."""
    num_chars: int
    """Characters of its texts and of its calls' names and arguments."""
    pieces: tuple[bytes, ...] = ()
    """16-byte digests of what an assistant message consists of, where clients spread the same over several messages or
    put it together again; empty where they do not. See `replies.py`."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """What to forward for one request."""

    messages: list[bytes]
    """JSON of each message, in order. Where nothing was dropped, the client's own bytes."""
    mode: Mode
    """The mode in force."""
    conversation: str = ""
    """Id of the conversation: its first message's chain hash (32 hex digits); empty where the mode is `off`."""
    is_holdout: bool = False
    """Whether the conversation goes through untouched, so that the others' saving can be measured against it."""
    bypass: Bypass | None = None
    """Why compression was skipped or failed; None where it ran."""
    epoch: str | None = None
    """Why earlier messages were rewritten on this turn (`cold`, `pays`, `need`); None where they were not."""
    num_new: int = 0
    """Messages that were decided in this call; the others were replayed from the ledger."""
    num_markers: int = 0
    """Markers in the forwarded messages."""
    num_lines_omitted: int = 0
    """Lines for which the markers in the forwarded messages stand."""
    num_chars_in: int = 0
    """Characters of the messages that came in."""
    num_chars_out: int = 0
    """Characters of the messages to forward."""
    renditions: Sequence[Rendition] = ()
    """What is in force of each message behind the leading system messages: what was dropped of it, and why."""
    originals: Mapping[str, str] = field(default_factory=dict)
    """Recall id (32 hex digits) → original text of what was shortened in this call."""
