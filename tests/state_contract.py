"""What every state store has to do. A store's tests inherit from `StateContract` and say how it is made.

`store` is a fixture that gives a store whose records live `ttl_s`; `twin` one that gives another on the same state, as
another process has it; `wait` lets the store's time pass.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable

import pytest

from sluice.compressor.state import StateStore

LONG = "0123456789abcdef0123456789abcdef"


Wait = Callable[[float], Awaitable[None]]

expiring = pytest.mark.parametrize("ttl_s", [3.0])
"""What looks at time to live waits for it; a store that others use keeps what it has however slow the machine is."""


class StateContract:
    @pytest.fixture
    def ttl_s(self) -> float:
        return 1000.0

    @pytest.fixture
    def wait(self) -> Wait:
        return asyncio.sleep

    async def test_what_was_put_is_found_and_what_was_not_is_none(self, store: StateStore) -> None:
        assert await store.put_new({b"a": b"1", b"b": b"2"}) == {b"a": b"1", b"b": b"2"}
        assert await store.get_many([b"b", b"x", b"a", b"b"]) == [b"2", None, b"1", b"2"]

    async def test_nothing_asked_nothing_answered(self, store: StateStore) -> None:
        assert await store.get_many([]) == []
        assert await store.put_new({}) == {}
        await store.put_originals(b"t", {})

    async def test_a_record_is_written_once(self, store: StateStore) -> None:
        await store.put_new({b"a": b"first"})
        assert await store.put_new({b"a": b"second", b"b": b"new"}) == {b"a": b"first", b"b": b"new"}
        assert await store.get_many([b"a", b"b"]) == [b"first", b"new"]

    async def test_keys_and_records_are_any_bytes(self, store: StateStore) -> None:
        records = {os.urandom(16): os.urandom(2000), b"\x00\r\n:": b"", b"\xff" * 40: b"\r\n$-1\r\n"}
        await store.put_new(records)
        assert await store.get_many(list(records)) == list(records.values())

    async def test_of_two_at_once_the_loser_adopts_the_winners(self, store: StateStore, twin: StateStore) -> None:
        keys = [b"key %d" % number for number in range(20)]
        outcomes = await asyncio.gather(
            *(
                one.put_new({key: b"%s by %d" % (key, number) for key in keys})
                for number, one in enumerate([store, twin] * 3)
            )
        )
        assert all(outcome == outcomes[0] for outcome in outcomes)
        for one in (store, twin):
            assert dict(zip(keys, await one.get_many(keys), strict=True)) == outcomes[0]

    @expiring
    async def test_what_nobody_asks_for_expires(self, store: StateStore, ttl_s: float, wait: Wait) -> None:
        await store.put_new({b"a": b"1"})
        await store.put_originals(b"t", {LONG: "text"})
        await wait(ttl_s * 1.3)
        assert await store.get_many([b"a"]) == [None]
        assert await store.find_originals(b"t", LONG[:4]) == {}
        assert await store.put_new({b"a": b"2"}) == {b"a": b"2"}

    @expiring
    async def test_what_is_asked_for_lives_on(self, store: StateStore, ttl_s: float, wait: Wait) -> None:
        await store.put_new({b"a": b"1", b"b": b"2"})
        await store.put_originals(b"t", {LONG: "text"})
        for _ in range(13):
            assert await store.get_many([b"a"]) == [b"1"]
            assert await store.find_originals(b"t", LONG[:4]) == {LONG: "text"}
            await wait(ttl_s / 10)
        assert await store.get_many([b"a", b"b"]) == [b"1", None]

    @expiring
    async def test_writing_what_is_there_slides_it_too(self, store: StateStore, ttl_s: float, wait: Wait) -> None:
        await store.put_new({b"a": b"1"})
        for _ in range(13):
            await wait(ttl_s / 10)
            assert await store.put_new({b"a": b"2"}) == {b"a": b"1"}
        assert await store.get_many([b"a"]) == [b"1"]

    async def test_originals_are_found_by_any_prefix_of_four_digits_or_more(self, store: StateStore) -> None:
        ids = {"7f3a" + "0" * 28: "one", "7f3a" + "f" * 28: "two", "7f3b" + "0" * 28: "three"}
        await store.put_originals(b"t", ids)
        assert await store.find_originals(b"t", "7f3a") == {key: ids[key] for key in sorted(ids)[:2]}
        assert await store.find_originals(b"t", "7f3af") == {"7f3a" + "f" * 28: "two"}
        assert await store.find_originals(b"t", "7f3b" + "0" * 28) == {"7f3b" + "0" * 28: "three"}
        assert await store.find_originals(b"t", "7f3c") == {}

    async def test_tenants_see_nothing_of_each_other(self, store: StateStore) -> None:
        tenants = [b"a", b"b", b"a:7f3a", b"", b"\x00\xff:", b"a:"]
        for tenant in tenants:
            await store.put_originals(tenant, {LONG: f"of {tenant!r}"})
        for tenant in tenants:
            assert await store.find_originals(tenant, LONG[:4]) == {LONG: f"of {tenant!r}"}
        assert await store.find_originals(b"c", LONG[:4]) == {}

    async def test_originals_are_any_text(self, store: StateStore) -> None:
        texts = ["", "lone \ud83d surrogate", "\udc00\ud800", "\x00\r\n", "ünï → 🙂", "x" * 300_000]
        texts += ["".join(map(chr, random.Random(seed).choices(range(0x110000), k=40))) for seed in range(20)]
        originals = {f"{number:032x}": text for number, text in enumerate(texts)}
        await store.put_originals(b"t", originals)
        assert await store.find_originals(b"t", "0000") == originals

    async def test_the_secret_is_32_bytes_and_stays(self, store: StateStore, twin: StateStore) -> None:
        secret = await store.secret()
        assert len(secret) == 32
        assert await store.secret() == secret == await twin.secret()

    async def test_it_answers(self, store: StateStore) -> None:
        await store.ping()
