"""The store on disk: it stays within its size, and what goes wrong with it is one error."""

from __future__ import annotations

import pytest

from sluice.search.errors import StoreError
from sluice.search.index.store import SegmentStore


def test_what_has_grown_too_large_loses_its_oldest_half(tmp_path):
    database = tmp_path / "segments.db"
    store = SegmentStore(database)
    keys = [bytes([number]) for number in range(10)]
    for key in keys:
        store.put_segments({key: key * 100})
        store.put_vectors("model", {key: key})
    store.close()
    store = SegmentStore(database, max_bytes=1)
    assert set(store.get_segments(keys)) == set(keys[5:])
    assert set(store.get_vectors("model", keys)) == set(keys[5:])
    assert store.get_vectors("other", keys) == {}
    store.close()


def test_what_is_there_stays_and_many_keys_are_asked_for_at_once():
    store = SegmentStore(None)
    store.put_segments({b"a": b"first"})
    store.put_segments({b"a": b"second", b"b": b"b"})
    asked = [b"a", b"b", *(str(number).encode() for number in range(2_000))]
    assert store.get_segments(asked) == {b"a": b"first", b"b": b"b"}


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    store = SegmentStore(tmp_path / "segments.db")
    with pytest.raises(StoreError, match="the search index on disk failed"):
        store.put_vectors("model", {b"a": b"data", b"b": None})  # type: ignore[dict-item]
    assert store.get_vectors("model", [b"a"]) == {}
    store.put_vectors("model", {b"a": b"data"})
    assert store.get_vectors("model", [b"a"]) == {b"a": b"data"}
    store.close()
    with pytest.raises(StoreError):
        store.get_manifest("/root")
    (tmp_path / "segments.db").write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError, match=r"segments\.db.* may be deleted"):
        SegmentStore(tmp_path / "segments.db")
