from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import ledger
from sluice.compressor.ledger import Rendition

identities = st.lists(st.binary(min_size=16, max_size=16), max_size=8)


@given(identities, identities)
def test_a_hash_names_the_whole_prefix(one: list[bytes], other: list[bytes]) -> None:
    start = ledger.chain_start(b"tenant", "https://api.example/v1")
    hashes, other_hashes = ledger.chain(start, one), ledger.chain(start, other)
    for index in range(min(len(one), len(other))):
        assert (hashes[index] == other_hashes[index]) == (one[: index + 1] == other[: index + 1])


def test_tenants_and_upstreams_share_nothing() -> None:
    starts = {ledger.chain_start(t, u) for t, u in [(b"a", "u"), (b"b", "u"), (b"a", "v"), (b"au", "")]}
    assert len(starts) == 4


@given(st.binary() | st.none(), st.integers(0, 9), st.lists(st.integers(1, 99)))
def test_records_read_back(body: bytes | None, num_markers: int, references: list[int]) -> None:
    rendition = Rendition(ledger.RECORD_VERSION, 3, body, num_markers, references=tuple(references))
    assert ledger.decode(ledger.encode(rendition)) == rendition


@given(st.binary())
def test_what_is_no_record_is_a_miss(data: bytes) -> None:
    assert ledger.decode(data) is None or ledger.encode(ledger.decode(data)) is not None  # type: ignore[arg-type]
    newer = ledger.encode(Rendition(ledger.RECORD_VERSION + 1, 1))
    assert ledger.decode(newer) is None
