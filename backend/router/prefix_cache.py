"""A prefix cache of finite size, by parts of prompts: the router's picture of a replica's KV cache.

Follows vLLM's order: what was used longest ago goes first, and of one prompt its last blocks. Knows no tokens, only
how many there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from sluice.backend.router.prompt import Prompt


class PrefixCache:
    """Which parts a cache of `capacity_tokens` holds.

    Args:
        capacity_tokens: room in all; None: nothing is ever evicted.
        block_tokens: what room is given in; the part of a block that is not full is not kept.
    """

    def __init__(self, capacity_tokens: int | None, block_tokens: int = 16) -> None:
        self.block_tokens = block_tokens
        self.num_blocks = 0
        """Blocks in use."""
        self._capacity = None if capacity_tokens is None else capacity_tokens // block_tokens
        # Of each part, how many of its blocks are held, oldest use first. Behind a part there is never one of its
        # ancestors: a prompt's parts are touched from the last to the first.
        self._held: OrderedDict[bytes, int] = OrderedDict()

    def __contains__(self, part: bytes) -> bool:
        return part in self._held

    def match(self, prompt: Prompt) -> int:
        """Tokens at the prompt's beginning that are held. Changes nothing."""
        num_blocks, start = 0, 0
        for part, end in zip(prompt.hashes, prompt.ends, strict=True):
            held = self._held.get(part)
            if held is None:
                break
            num_blocks += held
            stop = end // self.block_tokens
            if held < stop - start:
                break
            start = stop
        return num_blocks * self.block_tokens

    def insert(self, prompt: Prompt) -> list[bytes]:
        """Hold all of the prompt, as used now; returns the parts that are gone for it."""
        sizes, start = [], 0
        for end in prompt.ends:
            stop = end // self.block_tokens
            sizes.append(stop - start)
            start = stop
        held = self._held
        for part, size in zip(reversed(prompt.hashes), reversed(sizes), strict=True):
            self.num_blocks += size - held.get(part, 0)
            held[part] = size
            held.move_to_end(part)
        return self._evict()

    def clear(self) -> Iterable[bytes]:
        """Forget everything; returns the parts that were held."""
        gone = list(self._held)
        self._held.clear()
        self.num_blocks = 0
        return gone

    def resize(self, capacity_tokens: int) -> list[bytes]:
        """Take another size; returns the parts that are gone for it."""
        self._capacity = capacity_tokens // self.block_tokens
        return self._evict()

    def _evict(self) -> list[bytes]:
        gone: list[bytes] = []
        while self._capacity is not None and self.num_blocks > self._capacity:
            part, size = self._held.popitem(last=False)
            excess = self.num_blocks - self._capacity
            if size > excess:
                self._held[part] = size - excess
                self._held.move_to_end(part, last=False)
                self.num_blocks -= excess
            else:
                self.num_blocks -= size
                gone.append(part)
        return gone
