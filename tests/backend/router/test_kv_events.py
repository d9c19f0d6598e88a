from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.errors import RouterError
from sluice.backend.router import Prompt
from sluice.backend.router.block_index import BlockIndex, ConversationBlocks, block_digests
from sluice.backend.router.kv_events import (
    BlocksRemoved,
    BlocksStored,
    Cleared,
    KvEvent,
    KvEventSubscriber,
    read_batch,
    replay_endpoint,
)
from tests.backend.router.publisher import STORED, Publisher, batch
from tests.effort import examples


def test_events_are_read_as_maps_and_as_arrays() -> None:
    stored = BlocksStored((11, 12), None, (1, 2, 3, 4), 2)
    assert read_batch(batch(STORED)).events == (stored,)
    assert read_batch(batch(["BlockStored", [11, 12], None, [1, 2, 3, 4], 2, None, "GPU"])).events == (stored,)
    removed = {"type": "BlockRemoved", "block_hashes": [b"\x01"], "medium": "CPU", "group_idx": 1}
    assert read_batch(batch(removed, {"type": "AllBlocksCleared"}, {"type": "News"}, ["BlockRemoved", [3]])).events == (
        BlocksRemoved((b"\x01",), "CPU", 1),
        Cleared(),
        BlocksRemoved((3,)),
    )


@pytest.mark.parametrize("payload", [b"", b"\x01", msgspec.msgpack.encode([1.0]), batch({"type": "BlockStored"})])
def test_what_is_no_batch_is_refused(payload: bytes) -> None:
    with pytest.raises(RouterError, match="not a batch"):
        read_batch(payload)


def test_replays_stand_beside() -> None:
    assert replay_endpoint("tcp://gpu:5557") == "tcp://gpu:5558"
    assert replay_endpoint("ipc:///run/kv") == "ipc:///run/kv.replay"


@examples(100)
@given(st.lists(st.integers(0, 99), max_size=60), st.lists(st.integers(0, 99), max_size=60), st.integers(1, 8))
def test_digests_are_those_of_the_prefix_however_it_came(first: list[int], more: list[int], size: int) -> None:
    whole, known = block_digests(first + more, size), block_digests(first, size)
    assert whole[: len(known)] == known
    start = len(known) * size
    rest = block_digests((first + more)[start:], size, known[-1] if known else b"")
    assert known + rest == whole


def test_the_index_follows_what_is_stored_and_removed() -> None:
    index = BlockIndex()
    tokens = tuple(range(8))
    digests = block_digests(tokens, 2)
    index.apply("a", BlocksStored((1, 2), None, tokens[:4], 2))
    index.apply("a", BlocksStored((3, 4), 2, tokens[4:], 2))
    index.apply("b", BlocksStored((9,), None, tokens[:2], 2))
    assert [index.match(name, digests) for name in "abc"] == [4, 1, 0]
    assert index.block_tokens("a") == 2
    index.apply("a", BlocksRemoved((4, 77)))
    assert index.match("a", digests) == 3
    index.apply("a", Cleared())
    assert index.num_blocks("a") == 0
    index.clear("b")
    assert (index.num_blocks("b"), index.block_tokens("b")) == (0, 2), "it publishes, and holds nothing"
    assert index.block_tokens("c") is None


def test_a_block_is_held_until_its_last_tier_drops_it() -> None:
    index = BlockIndex()
    digests = block_digests((1, 2), 2)
    for medium in ("GPU", "CPU"):
        index.apply("a", BlocksStored((1,), None, (1, 2), 2, medium))
    index.apply("a", BlocksRemoved((1,), "GPU"))
    assert index.match("a", digests) == 1
    index.apply("a", BlocksRemoved((1,), "CPU"))
    assert index.match("a", digests) == 0


def test_a_block_behind_one_that_is_not_known_is_skipped_and_other_kinds_of_attention_too() -> None:
    index = BlockIndex()
    index.apply("a", BlocksStored((2,), 1, (3, 4), 2))
    index.apply("a", BlocksStored((3,), None, (1, 2), 2, group=1))
    assert index.num_blocks("a") == 0


def test_conversations_are_found_by_what_they_continue_and_bounded() -> None:
    known = ConversationBlocks(max_blocks=5)
    short = Prompt((b"r", b"1"), (10, 20))
    long = Prompt((b"r", b"1", b"2"), (10, 20, 40))
    known.learn(short, range(8), 2)
    assert known.find(long) == (block_digests(range(8), 2), 20 / 8)
    known.learn(long, range(10), 2)
    assert known.find(short) is None, "the longer one has its blocks, too"
    known.learn(Prompt((b"x",), (9,)), range(6), 2)
    assert known.find(long) is None, "there was no room for both"


class Heard:
    def __init__(self, endpoint: str) -> None:
        self.blocks: list[object] = []
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(KvEventSubscriber(endpoint, self.on_event, self.on_lost).run())

    def on_event(self, event: KvEvent) -> None:
        self.blocks += event.blocks if isinstance(event, BlocksStored) else [event]
        self.changed.set()

    def on_lost(self) -> None:
        self.blocks.append("lost")

    async def until(self, *blocks: object) -> None:
        async with asyncio.timeout(20):
            while self.blocks != list(blocks):
                self.changed.clear()
                await self.changed.wait()

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_nothing_is_missed_and_nothing_heard_twice(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/kv"
    publisher = Publisher(endpoint)
    for block in (1, 2):
        await publisher.publish(block)
    heard = Heard(endpoint)
    try:
        await heard.until(1, 2)
        await publisher.publish(3)
        await heard.until(1, 2, 3)
        await publisher.publish(4, is_lost=True)
        await publisher.publish(5)
        await heard.until(1, 2, 3, 4, 5)
        await publisher.publish(6, is_lost=True)
        publisher.kept_from = 7
        await publisher.publish(7)
        await heard.until(1, 2, 3, 4, 5, "lost", 7)
    finally:
        await heard.aclose()
        await publisher.aclose()


async def test_a_replica_that_was_restarted_is_heard_from_its_beginning(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/kv"
    publisher = Publisher(endpoint)
    for block in (1, 2, 3):
        await publisher.publish(block)
    heard = Heard(endpoint)
    try:
        await heard.until(1, 2, 3)
        publisher.batches.clear()
        await publisher.publish(8, is_lost=True)
        await publisher.publish(9)
        await heard.until(1, 2, 3, Cleared(), 8, 9)
    finally:
        await heard.aclose()
        await publisher.aclose()


async def test_one_that_has_forgotten_its_beginning_is_heard_from_where_it_remembers(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/kv"
    publisher = Publisher(endpoint)
    for block in range(6):
        await publisher.publish(block)
    publisher.kept_from = 4
    heard = Heard(endpoint)
    try:
        await heard.until("lost", 4, 5)
        await publisher.publish(6)
        await heard.until("lost", 4, 5, 6)
    finally:
        await heard.aclose()
        await publisher.aclose()


def test_what_a_replica_holds_is_known_until_events_are_lost_and_again_once_it_holds_nothing() -> None:
    index = BlockIndex()
    index.apply("a", BlocksStored((1,), None, (1, 2), 2))
    assert index.is_complete("a")
    index.lost("a")
    assert (index.is_complete("a"), index.num_blocks("a"), index.block_tokens("a")) == (False, 0, 2)
    index.apply("a", BlocksStored((1,), None, (1, 2), 2))
    assert not index.is_complete("a")
    index.apply("a", Cleared())
    assert index.is_complete("a")
    index.lost("a")
    index.clear("a")
    assert index.is_complete("a"), "it is heard anew"
