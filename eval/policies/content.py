"""How a frame writes a message with another text."""

from __future__ import annotations

import json

from sluice.eval.message import encode

PLACEHOLDER = "[old tool result omitted]"
"""What stands for a result that is dropped whole."""


def replace_content(raw: bytes, text: str) -> bytes:
    """The message with its content replaced by one text; all else stays."""
    return encode({**json.loads(raw), "content": text})
