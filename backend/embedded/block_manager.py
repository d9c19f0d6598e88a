"""Hands out the blocks of the KV cache: counts, prefix caching by chained hashes, LRU eviction, copy on write.

The ideas are vLLM's (PagedAttention, arXiv 2309.06180) and nano-vllm's. Ours: blocks are placed so that a sequence's
blocks lie side by side, which lets the CPU read keys and values as views. Knows block numbers, not tensors.
"""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

_GAP = re.compile(rb"\x01+")
_EVICTED_AT_ONCE = 1 / 32  # of all blocks: together they leave gaps in which sequences stay in one piece


class NoFreeBlocksError(Exception):
    """Fewer blocks are free than were asked for; the scheduler asks before it takes."""


def chain_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Names a full block by its tokens and everything before them; 16 bytes."""
    return blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()


class BlockManager:
    """Keeps count of `num_blocks` blocks of `block_size` tokens.

    A block is in use (count ≥ 1), cached (count 0, findable by its hash, evicted when space is needed) or free.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._counts = [0] * num_blocks
        self._is_free = bytearray(b"\x01") * num_blocks
        self._num_free = num_blocks
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated: free ones and cached ones."""
        return self._num_free + len(self._cached)

    def count(self, block: int) -> int:
        """How many sequences use the block."""
        return self._counts[block]

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold this many tokens."""
        return -(-num_tokens // self.block_size)

    def find(self, hashes: Iterable[bytes]) -> list[int]:
        """Blocks of the longest known beginning of the chain. Takes no hold of them."""
        found = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def num_cached_among(self, blocks: Iterable[int]) -> int:
        """How many of these blocks nobody uses now: holding them makes that many fewer available."""
        return sum(self._counts[block] == 0 for block in blocks)

    def hold(self, blocks: Iterable[int]) -> None:
        """Use blocks that are known already."""
        for block in blocks:
            if self._counts[block] == 0:
                del self._cached[block]
            self._counts[block] += 1

    def allocate(self, num_blocks: int, after: int | None = None) -> list[int]:
        """Take new blocks, best right behind block `after`.

        Raises NoFreeBlocksError, and takes none, if there are too few.
        """
        if num_blocks > self.num_available:
            raise NoFreeBlocksError(f"{num_blocks} blocks wanted, {self.num_available} available")
        if num_blocks > self._num_free:
            self._evict(max(num_blocks - self._num_free, int(self.num_blocks * _EVICTED_AT_ONCE)))
        taken: list[int] = []
        block = -1 if after is None else after
        while len(taken) < num_blocks:
            block += 1
            if (not taken and after is None) or block >= self.num_blocks or not self._is_free[block]:
                block = self._place(num_blocks - len(taken))
            self._is_free[block] = 0
            self._counts[block] = 1
            self._num_free -= 1
            taken.append(block)
        return taken

    def release(self, blocks: Sequence[int]) -> None:
        """Give up a sequence's blocks; those with a hash stay findable.

        The last are evicted first, as they lead nowhere.
        """
        for block in reversed(blocks):
            assert self._counts[block] > 0
            self._counts[block] -= 1
            if self._counts[block] == 0:
                if block in self._hash_of:
                    self._cached[block] = None
                else:
                    self._set_free(block)

    def register(self, block: int, block_hash: bytes) -> None:
        """Make a full block findable; the first of several equal ones stays the one that is found.

        A block keeps its first hash until it is evicted, as its content does not change.
        """
        if block_hash not in self._block_of and block not in self._hash_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash

    def copy_on_write(self, block: int) -> int | None:
        """A block to write to instead of `block`, which others use too; None if it is used by one alone.

        The caller copies the content. Raises NoFreeBlocksError.
        """
        if self._counts[block] == 1:
            return None
        (copy,) = self.allocate(1, after=block)
        self._counts[block] -= 1
        return copy

    def _place(self, num_blocks: int) -> int:
        """Where to begin: the middle of the largest gap, so that neighbours on both sides can grow."""
        gap = max(_GAP.finditer(self._is_free), key=lambda match: match.end() - match.start())
        return gap.start() + max(0, gap.end() - gap.start() - num_blocks) // 2

    def _evict(self, num_blocks: int) -> None:
        for _ in range(min(num_blocks, len(self._cached))):
            block, _ = self._cached.popitem(last=False)
            del self._block_of[self._hash_of.pop(block)]
            self._set_free(block)

    def _set_free(self, block: int) -> None:
        self._is_free[block] = 1
        self._num_free += 1
