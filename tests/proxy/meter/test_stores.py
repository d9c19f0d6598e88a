"""One suite for both stores: what was added is read back, summed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sluice.compressor import StateError
from sluice.proxy.meter import store as store_module
from sluice.proxy.meter.counterfactual import Last
from sluice.proxy.meter.redis_store import RedisMeterStore
from sluice.proxy.meter.store import About, Cell, Entry, MemoryMeterStore, MeterStore, TurnRow
from tests.redis_server import RedisServer

DAY = "2026-11-18"


def row(at_s: float, epoch: str | None = None) -> TurnRow:
    return TurnRow(at_s, 200, 30, 20, 25, 10, 5, 3, 0.5, 0.75, 1.5, epoch)


def entry(conversation: str = "c1", at_s: float = 1.0, model: str = "m", last: Last | None = None) -> Entry:
    about = About(model, "k", "balanced", "treated", "u", at_s)
    cell = Cell(DAY, model, "k", "balanced", "treated")
    return Entry(cell, {"turns": 1.0, "cost": 0.5}, conversation, about, row(at_s), last)


@pytest_asyncio.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[MeterStore]:
    made: MeterStore = (
        MemoryMeterStore() if request.param == "memory" else RedisMeterStore(request.getfixturevalue("redis_url"))
    )
    yield made
    await made.aclose()


async def test_counters_add_up_by_cell_and_day(store: MeterStore) -> None:
    await store.add(b"1", [entry(), entry(model="other model"), entry()])
    await store.add(b"2", [entry()])
    sums = await store.sums([DAY, "2026-11-19"])
    assert {cell.model: found for cell, found in sums.items()} == {
        "m": {"turns": 3.0, "cost": 1.5},
        "other model": {"turns": 1.0, "cost": 0.5},
    }
    assert await store.sums(["2026-11-19"]) == {}


async def test_conversations_come_newest_first_with_their_sums(store: MeterStore) -> None:
    await store.add(b"1", [entry("a", 1.0), entry("b", 2.0), entry("a", 3.0)])
    found = await store.conversations(0, 10)
    assert [(one.id, one.first_at_s, one.about.last_at_s) for one in found] == [("a", 1.0, 3.0), ("b", 2.0, 2.0)]
    assert await store.num_conversations() == 2
    assert await store.conversation("a") == found[0]
    assert await store.conversation("c") is None
    assert found[0].sums == {
        "turns": 2.0,
        "tokens_in": 60.0,
        "tokens_out": 40.0,
        "num_prompt": 50.0,
        "cache_read": 20.0,
        "cost": 1.0,
        "cost_untouched": 1.5,
        "priced": 2.0,
    }
    assert [one.id for one in await store.conversations(1, 1)] == ["b"]


async def test_turns_come_in_order_and_the_oldest_go(store: MeterStore) -> None:
    num = store_module.MAX_TURNS_EACH + 5
    await store.add(b"1", [entry("a", float(at_s)) for at_s in range(num)])
    rows = await store.turns("a")
    assert [one.at_s for one in rows] == [float(at_s) for at_s in range(5, num)]
    assert rows[0] == row(5.0)
    assert await store.turns("unknown") == []


async def test_the_last_turn_is_found_again(store: MeterStore) -> None:
    last = Last(5.0, 100, 7, 0.5)
    await store.add(b"1", [entry("a", last=last), entry("b")])
    await store.add(b"2", [entry("a")])
    assert await store.lasts(["a", "b", "c"]) == {"a": last}
    assert await store.lasts([]) == {}


@pytest.mark.redis
async def test_a_batch_that_comes_twice_counts_once(redis_url: str) -> None:
    store = RedisMeterStore(redis_url)
    for _ in range(3):
        await store.add(b"same", [entry()])
    (sums,) = (await store.sums([DAY])).values()
    assert sums["turns"] == 1.0
    assert len(await store.turns("c1")) == 1
    await store.aclose()


@pytest.mark.redis
async def test_several_workers_sum_up_and_all_keys_expire(redis_url: str, shared_redis: RedisServer) -> None:
    workers = [RedisMeterStore(redis_url) for _ in range(2)]
    for number, worker in enumerate(workers):
        await worker.add(b"%d" % number, [entry(f"c{number}", last=Last(1.0, 2, 3))])
    (sums,) = (await workers[0].sums([DAY])).values()
    assert sums["turns"] == 2.0
    assert {one.id for one in await workers[1].conversations(0, 9)} == {"c0", "c1"}
    redis = workers[0]._client.redis
    keys = await redis.keys("*")
    assert len(keys) > 5
    lasting = [key for key in keys if await redis.ttl(key) < 0]
    assert lasting == [b"sluice:1:meter:recent"]  # bounded by its number of entries
    for worker in workers:
        await worker.aclose()


@pytest.mark.redis
async def test_a_day_takes_only_so_many_names(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.proxy.meter.redis_store._MAX_FIELDS_A_DAY", 9)
    monkeypatch.setattr(store_module, "MAX_CELLS_A_DAY", 5)
    remote = RedisMeterStore(redis_url)
    for store in (MemoryMeterStore(), remote):
        await store.add(b"1", [entry(model=f"m{number}") for number in range(20)])
        sums = await store.sums([DAY])
        assert len(sums) <= 6
        assert sum(found["turns"] for found in sums.values()) == 20.0
        assert {cell.model: found["turns"] for cell, found in sums.items()}["other"] >= 14.0
    await remote.aclose()


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_CONVERSATIONS", 50)
    store = MemoryMeterStore(max_turns=100)
    for number in range(200):
        await store.add(b"", [entry(f"c{number}", float(number + turn)) for turn in range(10)])
    found = await store.conversations(0, 1000)
    assert len(found) <= 50
    assert sum([len(await store.turns(one.id)) for one in found]) <= 100
    assert found[0].id == "c199"


@pytest.mark.redis
async def test_a_lost_redis_is_a_state_error() -> None:
    store = RedisMeterStore("redis://127.0.0.1:9/0")
    for operation in (
        store.add(b"1", [entry()]),
        store.lasts(["a"]),
        store.sums([DAY]),
        store.conversations(0, 1),
        store.turns("a"),
    ):
        with pytest.raises(StateError, match="Redis"):
            await operation
    await store.aclose()
