"""Halves of surrogate pairs, which programs make that cut texts by UTF-16 units, and which no UTF-8 holds.

Each becomes U+FFFD, in JSON as an escape of the same length: all around it stays byte for byte. The proxy imports this
module: no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

# An escaped backslash and a whole pair are passed over, so that what is left are halves.
_ESCAPES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_HALVES = re.compile("[\ud800-\udfff]")

DecodedT = TypeVar("DecodedT")


def decode_whole(decode: Callable[[bytes], DecodedT], body: bytes) -> DecodedT:
    """Decode JSON by one of msgspec's decoders, which refuse halves, as if there were none.

    Raises:
        msgspec.DecodeError: it is no JSON, or (ValidationError) not of the decoder's type.
        UnicodeDecodeError: it is no UTF-8.
        RecursionError: it is nested too deeply.
    """
    try:
        return decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return decode(_ESCAPES.sub(lambda found: rb"\ufffd" if found[1] else found[0], body))


def whole(text: str) -> str:
    """The text with U+FFFD for each half."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _HALVES.sub("\ufffd", text)
    return text
