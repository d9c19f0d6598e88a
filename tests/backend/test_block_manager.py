from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sluice.backend.embedded.block_manager import BlockManager, NoFreeBlocksError, chain_hash
from tests.effort import examples


class Blocks(RuleBasedStateMachine):
    """Random use of a small cache, beside a model that counts by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = BlockManager(12, 4)
        self.tables: list[list[int]] = []
        self.num_hashes = 0

    @rule(num_blocks=st.integers(1, 6), extend=st.booleans())
    def allocate(self, num_blocks: int, extend: bool) -> None:
        table = self.tables.pop() if extend and self.tables else []
        before = self.manager.num_available
        if num_blocks > before:
            with pytest.raises(NoFreeBlocksError):
                self.manager.allocate(num_blocks)
            assert self.manager.num_available == before
        else:
            table = table + self.manager.allocate(num_blocks, after=table[-1] if table else None)
        if table:
            self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(register=st.booleans())
    def release(self, register: bool) -> None:
        table = self.tables.pop(0)
        for block in table:
            if register:
                self.num_hashes += 1
                self.manager.register(block, chain_hash(b"", [self.num_hashes]))
        self.manager.release(table)

    @precondition(lambda self: self.tables)
    @rule()
    def share_then_write(self) -> None:
        table = list(self.tables[0])
        self.manager.hold(table)
        if self.manager.num_available:
            copy = self.manager.copy_on_write(table[-1])
            assert copy is not None
            assert copy != table[-1]
            table[-1] = copy
        self.tables.append(table)

    @precondition(lambda self: self.num_hashes)
    @rule(number=st.integers(0, 40))
    def find_again(self, number: int) -> None:
        found = self.manager.find([chain_hash(b"", [number % self.num_hashes + 1])])
        if found:
            self.manager.hold(found)
            self.tables.append(found)

    @invariant()
    def counts_are_the_users(self) -> None:
        used = [block for table in self.tables for block in table]
        for block in range(self.manager.num_blocks):
            assert self.manager.count(block) == used.count(block)

    @invariant()
    def no_block_is_lost(self) -> None:
        used = {block for table in self.tables for block in table}
        assert self.manager.num_available == self.manager.num_blocks - len(used)

    def teardown(self) -> None:
        for table in self.tables:
            self.manager.release(table)
        assert self.manager.num_available == self.manager.num_blocks


Blocks.TestCase.settings = settings(examples(100), stateful_step_count=40)
TestBlocks = Blocks.TestCase


def test_a_sequence_that_grows_stays_in_one_piece() -> None:
    manager = BlockManager(64, 16)
    tables = [manager.allocate(2) for _ in range(4)]
    for _ in range(5):
        for table in tables:
            table += manager.allocate(1, after=table[-1])
    for table in tables:
        assert table == list(range(table[0], table[0] + 7))


def test_the_chain_names_everything_before_a_block() -> None:
    assert chain_hash(chain_hash(b"", [1]), [3]) != chain_hash(chain_hash(b"", [2]), [3])


def test_least_recently_used_blocks_are_evicted_first_and_ends_before_beginnings() -> None:
    manager = BlockManager(4, 1)
    hashes = [chain_hash(b"", [index]) for index in range(4)]
    old, new = manager.allocate(2), manager.allocate(2)
    for block, block_hash in zip(old + new, hashes, strict=True):
        manager.register(block, block_hash)
    manager.release(old)
    manager.release(new)
    manager.allocate(1)
    assert manager.find(hashes[:2]) == old[:1]
    assert manager.find(hashes[2:]) == new


def test_a_block_keeps_its_first_name() -> None:
    manager = BlockManager(1, 1)
    (block,) = manager.allocate(1)
    manager.register(block, b"first")
    manager.register(block, b"second")
    manager.release([block])
    assert manager.find([b"first"]) == [block]
    manager.release(manager.allocate(1))
    assert manager.find([b"first"]) == manager.find([b"second"]) == []


def test_equal_blocks_are_found_as_the_first_of_them() -> None:
    manager = BlockManager(4, 1)
    first, second = manager.allocate(2)
    manager.register(first, b"same")
    manager.register(second, b"same")
    assert manager.find([b"same"]) == [first]
    manager.release([second])
    assert manager.num_available == 3
    manager.release([first])
    assert manager.find([b"same"]) == [first]
    assert manager.num_available == 4
