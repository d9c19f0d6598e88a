"""JSON as translations read and write it: the same value always gives the same bytes. Knows no wire format."""

from __future__ import annotations

import json
from typing import Any

import msgspec

Json = dict[str, Any]


def decode(data: bytes | str) -> Any:
    """Decode JSON, halves of surrogate pairs included, which some clients send.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def decode_object(data: bytes | str) -> Json:
    """Decode JSON that has to be an object.

    Raises:
        ValueError: it is none.
    """
    value = decode(data)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {type(value).__name__}")
    return value


def encode(value: object) -> bytes:
    """Encode as compact JSON, keys in their order."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair has no UTF-8; as an escape it can be said
        return json.dumps(value, separators=(",", ":")).encode()


def objects(value: object) -> list[Json]:
    """The objects of a list; what is no list has none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """A string, or the empty string where it is none."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Json:
    """An object, or the empty one where it is none."""
    return value if isinstance(value, dict) else {}


def number(value: object) -> int:
    """A count of tokens; zero where it is none."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
