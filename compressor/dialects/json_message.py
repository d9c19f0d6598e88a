"""What the adapters share: decoding and encoding a message's JSON, and `cache_control`, which clients move about."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from sluice.compressor.errors import MalformedMessageError

CACHE_CONTROL = "cache_control"


def decode(raw: bytes) -> dict[str, Any]:
    """Decode a message.

    Raises:
        MalformedMessageError: it is no JSON object.
    """
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        fields = _decode_slowly(raw)
    if not isinstance(fields, dict):
        raise MalformedMessageError(f"a message is a JSON object, not {type(fields).__name__}")
    return fields


def encode(value: object) -> bytes:
    """Encode a message, or a part of one."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair can be written as an escape alone
        return json.dumps(value, separators=(",", ":")).encode()


def arguments_text(value: object) -> str:
    """A call's arguments as JSON text, as they are where they are text already."""
    return value if isinstance(value, str) else encode(value).decode()


def without_cache_control(parts: list[Any]) -> list[Any]:
    """The parts of a content, each less its `cache_control`."""
    return [
        {key: value for key, value in part.items() if key != CACHE_CONTROL} if isinstance(part, dict) else part
        for part in parts
    ]


def lone_text(parts: list[Any]) -> str | None:
    """The text of a content that could as well be a string."""
    only = parts[0] if len(parts) == 1 else None
    if isinstance(only, dict) and only.keys() == {"type", "text"} and only["type"] == "text":
        return only["text"] if isinstance(only["text"], str) else None
    return None


def _decode_slowly(raw: bytes) -> object:
    """Decode what msgspec refuses and the standard library reads: half a surrogate pair, left by a cut in an emoji."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not JSON: {error}") from error
