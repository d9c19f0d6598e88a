from __future__ import annotations

import json

import msgspec
import pytest

from sluice.proxy.surrogates import decode_with, without_surrogates


class Named(msgspec.Struct):
    name: str = ""


DECODER = msgspec.json.Decoder(Named)


def test_what_holds_half_an_emoji_is_read_all_the_same() -> None:
    assert decode_with(DECODER, b'{"name": "n\\u00fc\\ud83d", "x": "y"}').name == "nü?"
    assert decode_with(DECODER, json.dumps({"x": ["cut \ud83d"], "name": "n 😀"}).encode()).name == "n 😀"


@pytest.mark.parametrize(
    "data",
    [b"", b"no json", b"[]", b'{"name": 1}', b'{"name": 1, "x": "\\ud83d"}', b"\xff", b'{"x":' + b"[" * 100_000],
)
def test_what_cannot_be_read_is_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_with(DECODER, data)


def test_a_text_can_be_written() -> None:
    assert without_surrogates("a\ud83db ü😀") == "a?b ü😀"
