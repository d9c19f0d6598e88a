"""What is known of a tree's files, as it is kept: whatever stands there, it is read or left aside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.search.index.manifest import Manifest, decode_manifest, encode_manifest

WHOLE = encode_manifest(Manifest("/a/tree", (1, 2), {}))


@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)), st.binary(max_size=3))
def test_what_was_spoilt_is_nothing(start: int, length: int, put: bytes) -> None:
    assert decode_manifest(WHOLE[:start] + put + WHOLE[start + length :], "/a/tree", (1, 2)) == {}
