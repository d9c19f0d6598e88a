"""What a conversation's people and its agent said, clipped: the little text that is kept for a model to read.

At most `MAX_CHARS` characters a message, so that a conversation of 300 messages keeps some 300 kB. Knows no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.compressor.types import Role

MAX_PROSE_CHARS = {"user": 2_400, "assistant": 800}
"""Of a message's prose, by who wrote it. What systems say is the same in every conversation, and is not kept."""
MAX_CALL_CHARS = 400
"""Of one call's arguments."""
MAX_CALLS = 8
"""Of one message."""
MAX_CHARS = max(MAX_PROSE_CHARS.values()) + MAX_CALLS * MAX_CALL_CHARS
_REMINDER = re.compile(r"<(system-reminder|environment_context|user_instructions)>.*?(?:</\1>|\Z)", re.DOTALL)
"""What clients put beside the user's words."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message, less its tool results."""

    role: Role
    position: int
    """Its place in the conversation, from 1."""
    prose: str
    calls: tuple[str, ...]
    """The arguments of each of its calls, one after the other."""


def clipped(role: Role, position: int, prose: Sequence[str], calls: Sequence[Sequence[str]]) -> Said | None:
    """What is kept of a message; None if that is nothing.

    Args:
        role: who wrote it.
        position: see `Said`.
        prose: its texts.
        calls: the strings among each call's arguments.
    """
    max_chars = MAX_PROSE_CHARS.get(role, 0)
    # Reminders are cut out of what can matter only, so that a long message costs no more than a short one.
    text = "\n".join(part[: 8 * max_chars] for part in prose) if max_chars else ""
    text = _REMINDER.sub("", text).strip()[:max_chars]
    written = tuple(" ".join(part[:MAX_CALL_CHARS] for part in call)[:MAX_CALL_CHARS] for call in calls[:MAX_CALLS])
    return Said(role, position, text, written) if text or any(written) else None
