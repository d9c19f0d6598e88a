"""The user's own words, given back where an agent has replaced its history by a summary.

A summary is the agent's; what the user asked for is in it only as far as the agent thought it worth a line. Where the
caller names the session that a request belongs to, the words are kept and stand behind the summary, verbatim, in the
order in which they were said. Off unless it is asked for. Knows no store: plain functions of messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from sluice.compressor.tags import less
from sluice.compressor.types import Message

_SUMMARIES = re.compile(
    r"""\A\s*(?:
        This\ session\ is\ being\ continued\ from\ a\ previous\ conversation       # Claude Code
      | Another\ language\ model\ started\ to\ solve\ this\ problem                # Codex
      | <(?:state_snapshot|conversation_summary|summary)>                          # Gemini CLI, others
      | \[(?:compacted|conversation\ summary)\]
      | I\ spoke\ to\ you\ previously\ about\ a\ number\ of\ things                # Aider
      | What\ did\ we\ do\ so\ far\?                                               # OpenCode
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_NOT_SAID = re.compile(
    r"<(system-reminder|environment_context|environment_details|user_instructions|local-command-\w+|command-\w+)\b[^<>]*>"
)
"""What agents put into user messages by themselves."""
_HEADING = "[sluice: the user's own words from before the summary, verbatim]"


def is_summary(message: Message) -> bool:
    """Whether a message is what an agent has put in the place of its history."""
    texts = [text.text for text in message.texts if not text.is_result]
    return message.role == "user" and any(_SUMMARIES.match(less(text, _NOT_SAID)) for text in texts)


def words_of(message: Message) -> Iterator[str]:
    """What the user says in a message, less what agents put beside it."""
    # A user's message with results in it counts as a tool's, and the user may speak beside them.
    if message.role not in ("user", "tool") or is_summary(message):
        return
    for text in message.texts:
        said = "" if text.is_result else less(text.text, _NOT_SAID).strip()
        if said:
            yield said


def bucket(session: bytes) -> str:
    """First half (16 hex digits) of the ids under which a session's words are kept."""
    return blake2b(b"words" + session, digest_size=8).hexdigest()


def word_id(session: bytes, at_s: float, index: int, text: str) -> str:
    """Id (32 hex digits) of what the user said: ids sort in the order in which it was said.

    Args:
        session: as the caller names it.
        at_s: when the request came, by the wall clock.
        index: of the text among those that are new in the request.
        text: what was said.
    """
    digest = blake2b(text.encode(errors="replace"), digest_size=2).hexdigest()
    # The time is in units of 16 ms, and so its digits are the first ones of what ids had before, in ms.
    return f"{bucket(session)}{int(at_s * 1000) >> 4 & 0xFFFFFFFFFF:010x}{min(index, 255):02x}{digest}"


def addition(words: Iterable[str], max_chars: int) -> str:
    """What stands behind the summary; empty where there is nothing to say.

    Args:
        words: in the order in which they were said; what was said twice stands once.
        max_chars: the first words and then the newest are taken, whole, as long as they fit: the task comes first.
    """
    said = list(dict.fromkeys(words))
    chosen: set[int] = set()
    num_chars = 0
    for index in [*range(min(1, len(said))), *reversed(range(1, len(said)))]:
        if num_chars + len(said[index]) > max_chars:
            break
        num_chars += len(said[index])
        chosen.add(index)
    return "\n".join([_HEADING, *(said[index] for index in sorted(chosen))]) if chosen else ""
