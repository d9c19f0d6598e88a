"""Which model a body names that is not decoded otherwise, as far as that can be told."""

from __future__ import annotations

import json

import msgspec


class _Named(msgspec.Struct):
    model: str = ""


_decoder = msgspec.json.Decoder(_Named)


def model_of(body: bytes) -> str:
    """The `model` of a JSON object; empty where there is none.

    What only the standard library reads (`NaN`, escaped halves of surrogate pairs) is read as well.
    """
    try:
        return _decoder.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    model = fields.get("model") if isinstance(fields, dict) else None
    return model if isinstance(model, str) else ""
