"""The line that one agent puts before its system prompt and changes with every request: for billing, not for a model.

Anthropic takes it out before its cache looks; any other server sees a prompt whose first tokens are new each time. It
is left out for self-hosted upstreams, and of what decides whether a cache is warm.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_LINE = re.compile(r"\Ax-anthropic-billing-header:[^\n]*\n*")
_MARK = b"x-anthropic-billing-header"


def without_billing_line(system: bytes) -> bytes:
    """A messages request's `system` less that line; the same bytes where there is none.

    Args:
        system: its JSON, a string or a list of blocks.
    """
    if _MARK not in system[:1024]:
        return system
    try:
        value: Any = msgspec.json.decode(system)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return system
    if isinstance(value, str):
        rest = _LINE.sub("", value)
        return system if rest == value else msgspec.json.encode(rest)
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, dict) or not isinstance(first.get("text"), str):
        return system
    rest = _LINE.sub("", first["text"])
    if rest == first["text"]:
        return system
    return msgspec.json.encode([{**first, "text": rest}, *value[1:]] if rest else value[1:])
