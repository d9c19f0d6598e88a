from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import ledger
from sluice.compressor.ledger import Omitted, Override, Reason, Rendition, TurnRecord

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


@given(st.data(), st.binary(max_size=3))
def test_what_is_spoilt_is_a_miss_or_a_record(data: st.DataObject, put: bytes) -> None:
    old = Rendition(ledger.RECORD_VERSION, 2, b"old")
    omitted = (Omitted(0, 1, 9, Reason.NOT_NEEDED, 0.5),)
    turn = TurnRecord(1.5, 2, -3.0, b"context")
    epoch = {4: Override(b"identity", old)}
    whole = ledger.encode(
        Rendition(
            ledger.RECORD_VERSION, 3, b"body", 1, 8, 90, (1, 2), omitted, ((1, 0, 2, 3),), turn, epoch, (b"short",)
        )
    )
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    found = ledger.decode(whole[:start] + put + whole[stop:])
    if found is not None:  # compared as it is written: a number may have become none
        again = ledger.decode(ledger.encode(found))
        assert again is not None
        assert ledger.encode(again) == ledger.encode(found)
    assert ledger.decode(put) is None


def test_a_record_of_another_version_is_a_miss() -> None:
    newer = ledger.encode(Rendition(ledger.RECORD_VERSION + 1, 1))
    assert ledger.decode(newer) is None
