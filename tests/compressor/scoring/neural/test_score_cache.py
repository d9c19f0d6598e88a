from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sluice.compressor import MemoryStore
from sluice.compressor.errors import StateError
from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.score_cache import Outcome, StoreCache, decode, encode, key_of, rounded
from sluice.compressor.scoring.neural.types import Floats, Window

LOGITS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 30), st.just(len(HEADS))), elements=st.floats(-30, 30, width=32)
)


@given(LOGITS)
def test_what_is_found_is_what_was_used(logits: Floats) -> None:
    used = Outcome(rounded(logits))
    found = decode(encode(used), len(logits))
    assert found is not None
    assert found.logits is not None
    assert used.logits is not None
    assert np.array_equal(found.logits, used.logits)
    assert found.logits.dtype == np.float32


def test_that_nothing_was_scored_is_found_too() -> None:
    assert decode(encode(Outcome(None)), 7) == Outcome(None)


@pytest.mark.parametrize("record", [b"", b"x", b"s", b"s123", b"ff", encode(Outcome(np.zeros((2, 2), np.float32)))])
def test_what_is_no_record_of_so_many_lines_is_none(record: bytes) -> None:
    assert decode(record, 3) is None


def test_keys_differ_by_what_is_read_and_by_the_model() -> None:
    ids, ends = np.arange(9, dtype=np.int32), np.array([4, 8], np.int32)
    window = Window(ids, ends, 2, 0, 0)
    elsewhere = Window(ids, ends, 2, 3, 17)
    assert key_of(window, "1") == key_of(elsewhere, "1")
    others = [Window(ids + 1, ends, 2, 0, 0), Window(ids, ends[:1], 2, 0, 0)]
    assert len({key_of(window, "1"), key_of(window, "2"), *(key_of(other, "1") for other in others)}) == 4


async def test_records_go_to_the_store_and_come_back_from_any_thread() -> None:
    cache = StoreCache(MemoryStore(), asyncio.get_running_loop())

    def work() -> list[bytes | None]:
        cache.put_new({b"a": b"1", b"b": b"2"})
        cache.put_new({b"a": b"other"})
        return cache.get_many([b"a", b"c"]).result(20)

    assert await asyncio.to_thread(work) == [b"1", None]


async def test_a_lost_store_is_no_matter_when_writing(caplog: pytest.LogCaptureFixture) -> None:
    class Lost(MemoryStore):
        async def put_new(self, records: object) -> dict[bytes, bytes]:
            raise StateError("gone")

    cache = StoreCache(Lost(), asyncio.get_running_loop())
    cache.put_new({b"a": b"1"})
    await asyncio.sleep(0.01)
    assert "gone" in caplog.text


def test_after_the_loop_has_ended_nothing_is_known() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    cache = StoreCache(MemoryStore(), loop)
    cache.put_new({b"a": b"1"})
    assert cache.get_many([b"a"]).result(1) == [None]
