"""Thinking that came in a field of the chat format, and finds its way back to it through the other formats.

Some models want what they thought between their calls back. A thinking block of the Messages format says in its
signature that it is ours, and which field it came in; blocks that Anthropic signed mean nothing to others and are left
out. Knows no streams.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice.proxy.translation.json_codec import Json, text

FIELDS = ("reasoning_content", "reasoning")
"""Fields of the chat format in which servers say what the model thought."""
SIGNATURE = "sluice:"
"""What a signature of ours begins with."""


def signature_of(field: str) -> str:
    """The signature of a block that was translated from a field."""
    return SIGNATURE + field


def thinking_of(blocks: Sequence[Json]) -> Json | None:
    """What goes back to the upstream, by its field, of a message's blocks."""
    found: Json = {}
    for block in blocks:
        field = text(block.get("signature")).removeprefix(SIGNATURE)
        if block.get("type") == "thinking" and block.get("signature") == signature_of(field) and field in FIELDS:
            found[field] = found.get(field, "") + text(block.get("thinking"))
    return found or None
