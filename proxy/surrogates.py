"""Lone surrogates: what is left of an emoji that a client cut in the middle. JSON can say them; UTF-8 cannot.

Every message may hold one: what decodes or writes what clients and models said must not fail for it.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

T = TypeVar("T")


def without_surrogates(text: str) -> str:
    """The text as it can be written: `?` stands for each lone surrogate."""
    return text.encode("utf-8", "replace").decode()


def decode_with(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Decode, `?` in the place of lone surrogates, for which msgspec refuses the whole.

    Raises:
        msgspec.DecodeError: it is no JSON, or has not the decoder's form.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            whole = json.dumps(json.loads(bytes(data)), ensure_ascii=False)
        except (ValueError, RecursionError):
            raise msgspec.DecodeError(str(error)) from None
    return decoder.decode(whole.encode("utf-8", "replace"))
