from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.router import Prompt
from sluice.backend.router.prefix_cache import PrefixCache
from tests.effort import examples

BLOCK = 16


def prompt(*parts: tuple[str, int]) -> Prompt:
    hashes, ends, total, name = [], [], 0, ""
    for part, size in parts:
        name, total = f"{name}/{part}", total + size
        hashes.append(name.encode())
        ends.append(total)
    return Prompt(tuple(hashes), tuple(ends))


def test_what_was_inserted_is_held_in_whole_blocks() -> None:
    cache = PrefixCache(None, BLOCK)
    cache.insert(prompt(("a", 40), ("b", 30)))
    assert cache.match(prompt(("a", 40))) == 32
    assert cache.match(prompt(("a", 40), ("b", 30), ("c", 99))) == 64
    assert cache.match(prompt(("x", 40))) == 0


def test_the_last_blocks_of_what_was_used_longest_ago_go_first() -> None:
    cache = PrefixCache(160, BLOCK)
    old, new = prompt(("a", 80), ("b", 48)), prompt(("c", 64))
    cache.insert(old)
    assert cache.insert(new) == (new.hashes, [])
    assert cache.match(new) == 64
    assert cache.match(old) == 96
    cache.insert(old)
    assert cache.match(new) == 32


@st.composite
def uses(draw: st.DrawFn) -> list[list[tuple[str, int]]]:
    sizes = {name: draw(st.integers(1, 60)) for name in "abcd"}
    paths = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4)
    return [[(name, sizes[name]) for name in path] for path in draw(st.lists(paths, max_size=12))]


@examples(200)
@given(uses(), st.integers(1, 20))
def test_it_holds_what_a_cache_of_single_blocks_holds(paths: list[list[tuple[str, int]]], num_blocks: int) -> None:
    cache, reference = PrefixCache(num_blocks * BLOCK, BLOCK), Blocks(num_blocks)
    for path in paths:
        used = prompt(*path)
        assert cache.match(used) == reference.match(used)
        cache.insert(used)
        reference.insert(used)
        assert cache.num_blocks == len(reference.held) <= num_blocks


class Blocks:
    """Every block by itself, as a page table would have it."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.held: OrderedDict[tuple[bytes, int], None] = OrderedDict()

    def blocks(self, used: Prompt) -> list[tuple[bytes, int]]:
        found, start = [], 0
        for part, end in zip(used.hashes, used.ends, strict=True):
            found += [(part, number) for number in range(start, end // BLOCK)]
            start = end // BLOCK
        return found

    def match(self, used: Prompt) -> int:
        count = 0
        for block in self.blocks(used):
            if block not in self.held:
                break
            count += 1
        return count * BLOCK

    def insert(self, used: Prompt) -> None:
        for block in reversed(self.blocks(used)):
            self.held[block] = None
            self.held.move_to_end(block)
        while len(self.held) > self.num_blocks:
            self.held.popitem(last=False)
