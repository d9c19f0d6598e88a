"""Places a cache breakpoint for clients of Anthropic's wire that set none, so that their next turn reads the cache.

Where: at the end of the newest message, all that the next request repeats. Only once the conversation has an answer in
it: writing a cache that nobody will read costs a quarter more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

_EPHEMERAL = {"type": "ephemeral"}
_TAKERS = frozenset({"text", "tool_result", "image", "document", "tool_use"})


def place_breakpoint(raw: bytes, messages: Sequence[bytes]) -> list[bytes]:
    """The messages, the newest of them with a breakpoint where the request has none and it would be of use.

    Args:
        raw: the client's body.
        messages: as they are to be forwarded.
    """
    messages = list(messages)
    if b'"cache_control"' in raw or len(messages) < 3:
        return messages
    try:
        newest: Any = msgspec.json.decode(messages[-1])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return messages
    content = newest.get("content")
    if isinstance(content, str) and content:
        newest["content"] = [{"type": "text", "text": content, "cache_control": _EPHEMERAL}]
    elif isinstance(content, list) and content and isinstance(content[-1], dict) and content[-1].get("type") in _TAKERS:
        content[-1]["cache_control"] = _EPHEMERAL
    else:
        return messages
    messages[-1] = msgspec.json.encode(newest)
    return messages
