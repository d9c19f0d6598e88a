from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.surrogates import decode_whole, whole
from tests.effort import examples

TEXTS = st.text(st.sampled_from('a"\\/ué😀\n') | st.characters(categories=["Cs"]), max_size=12)


@examples(200)
@given(TEXTS)
def test_halves_are_replaced_and_all_else_stays(text: str) -> None:
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert decode_whole(msgspec.json.decode, json.dumps({"k": text}).encode()) == {"k": joined}
    assert whole(joined) == joined
    assert len(whole(text)) == len(text)
    whole(text).encode()


def test_an_escaped_backslash_is_no_escape() -> None:
    body = rb'["\\ud83d", "\ud83d", "\ud83d\ude00", "\ude00\\", "\uD83D\ud83d"]'
    assert decode_whole(msgspec.json.decode, body) == [r"\ud83d", "\ufffd", "😀", "\ufffd\\", "\ufffd\ufffd"]


@pytest.mark.parametrize("body", [b"{", rb'["\ud83"]', rb'["\ud83d"', b'["\xed\xa0\xbd"]'])
def test_what_is_no_json_is_refused_as_ever(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode_whole(msgspec.json.decode, body)
