"""A prefix cache for each replica, and for each part of a prompt the replicas that hold it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sluice.backend.router.policy import Tokens
from sluice.backend.router.prefix_cache import PrefixCache
from sluice.backend.router.prompt import Prompt


class ReplicaCaches:
    """Which parts replicas hold; replicas are numbers.

    Args:
        num_replicas: how many there are.
        capacity_tokens: room of each.
        block_tokens: tokens of a block.
    """

    def __init__(self, num_replicas: int, capacity_tokens: int, block_tokens: int) -> None:
        self._caches = [PrefixCache(capacity_tokens, block_tokens) for _ in range(num_replicas)]
        # A bit for each replica: whole sets are compared and told apart at once, at a thousand replicas, too.
        self._holders: dict[bytes, int] = {}

    def match(self, replica: int, prompt: Prompt) -> int:
        """Tokens at the prompt's beginning that one replica holds, in whole blocks."""
        return self._caches[replica].match(prompt)

    def cached(self, prompt: Prompt) -> Tokens:
        """Tokens of the prompt that each replica holds, to the nearest part."""
        found: Tokens = np.zeros(len(self._caches))
        seen = 0
        for part, end in zip(reversed(prompt.hashes), reversed(prompt.ends), strict=True):
            holders = self._holders.get(part, 0)
            if holders != seen:  # whoever holds a part holds all before it, so that the last one counts
                found[self._numbers(holders & ~seen)] = end
                seen = holders
        return found

    def insert(self, replica: int, prompt: Prompt) -> None:
        """A replica holds all of the prompt, as used now."""
        new, gone = self._caches[replica].insert(prompt)
        bit, holders = 1 << replica, self._holders
        for part in new:
            holders[part] = holders.get(part, 0) | bit
        self._drop(replica, gone)

    def clear(self, replica: int) -> None:
        """A replica holds nothing any more."""
        self._drop(replica, self._caches[replica].clear())

    def resize(self, replica: int, capacity_tokens: int) -> None:
        """Tell a replica's room."""
        self._drop(replica, self._caches[replica].resize(capacity_tokens))

    def _drop(self, replica: int, gone: Iterable[bytes]) -> None:
        bit, holders = 1 << replica, self._holders
        for part in gone:
            left = holders[part] & ~bit
            if left:
                holders[part] = left
            else:
                del holders[part]

    def _numbers(self, holders: int) -> int | NDArray[np.bool_]:
        """An index into an array of replicas: the one number, or a mask."""
        if holders & (holders - 1) == 0:
            return holders.bit_length() - 1
        num_bytes = (len(self._caches) + 7) // 8
        packed = np.frombuffer(holders.to_bytes(num_bytes, "little"), dtype=np.uint8)
        mask: NDArray[np.bool_] = np.unpackbits(packed, count=len(self._caches), bitorder="little").view(np.bool_)
        return mask
