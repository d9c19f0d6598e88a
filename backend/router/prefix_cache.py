"""A prefix cache of finite size, by parts of prompts: the router's picture of a replica's KV cache.

Follows vLLM's order: what was used longest ago goes first, and of one prompt its last blocks. Knows no tokens, only
how many there are. Parts are named by chained digests, so that one that is held has all before it held, too.

A use costs its new parts alone: parts that were always used together are one run (a radix tree's edge), and what is
ordered by use are the runs.
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
        self._run_of: dict[bytes, _Run] = {}
        # Oldest use first. Behind a run there is never one that its parts stand on: a prompt's runs are touched from
        # the last to the first.
        self._runs: OrderedDict[_Run, None] = OrderedDict()

    def match(self, prompt: Prompt) -> int:
        """Tokens at the prompt's beginning that are held. Changes nothing."""
        index = self._deepest(prompt)
        if index < 0:
            return 0
        run = self._run_of[prompt.hashes[index]]
        missing = run.num_missing if index == run.last_depth else 0
        return (prompt.ends[index] // self.block_tokens - missing) * self.block_tokens

    def insert(self, prompt: Prompt) -> tuple[tuple[bytes, ...], list[bytes]]:
        """Hold all of the prompt, as used now.

        Returns:
            The parts that are new, and those that are gone for them (which may be among the new, where there is no
            room for all of the prompt).
        """
        index = self._deepest(prompt)
        new = prompt.hashes[index + 1 :]
        run = self._touch(prompt, index)
        if new:
            if run is None:
                run = _Run(0)
                self._runs[run] = None
            start = prompt.ends[index] // self.block_tokens if index >= 0 else 0
            for end in prompt.ends[index + 1 :]:
                stop = end // self.block_tokens
                run.sizes.append(stop - start)
                self.num_blocks += stop - start
                start = stop
            run.parts += new
            for part in new:
                self._run_of[part] = run
        return new, self._evict()

    def clear(self) -> Iterable[bytes]:
        """Forget everything; returns the parts that were held."""
        gone = list(self._run_of)
        self._run_of.clear()
        self._runs.clear()
        self.num_blocks = 0
        return gone

    def resize(self, capacity_tokens: int) -> list[bytes]:
        """Take another size; returns the parts that are gone for it."""
        self._capacity = capacity_tokens // self.block_tokens
        return self._evict()

    def _deepest(self, prompt: Prompt) -> int:
        """Index of the last part that is held; -1 where none is."""
        run_of = self._run_of
        for index in range(len(prompt.hashes) - 1, -1, -1):
            if prompt.hashes[index] in run_of:
                return index
        return -1

    def _touch(self, prompt: Prompt, index: int) -> _Run | None:
        """Make the runs up to part `index` whole and the newest; returns the last of them, which ends there."""
        last = None
        while index >= 0:
            run = self._run_of[prompt.hashes[index]]
            if index < run.last_depth:
                run = self._split(run, index)
            elif run.num_missing:
                self.num_blocks += run.num_missing
                run.num_missing = 0
            self._runs[run] = None
            self._runs.move_to_end(run)
            last = last or run
            index = run.depth - 1
        return last

    def _split(self, run: _Run, index: int) -> _Run:
        """Part a run behind the part at depth `index`; returns the upper half. The lower one keeps its place."""
        upper, size = _Run(run.depth), index + 1 - run.depth
        upper.parts, run.parts = run.parts[:size], run.parts[size:]
        upper.sizes, run.sizes = run.sizes[:size], run.sizes[size:]
        run.depth += size
        for part in upper.parts:
            self._run_of[part] = upper
        return upper

    def _evict(self) -> list[bytes]:
        gone: list[bytes] = []
        while self._capacity is not None and self.num_blocks > self._capacity:
            run = next(iter(self._runs))
            excess, held = self.num_blocks - self._capacity, run.sizes[-1] - run.num_missing
            if held > excess:
                run.num_missing += excess
                self.num_blocks -= excess
                break
            self.num_blocks -= held
            run.sizes.pop()
            run.num_missing = 0
            gone.append(run.parts.pop())
            del self._run_of[gone[-1]]
            if not run.parts:
                del self._runs[run]
        return gone


class _Run:
    """Parts that follow on each other and were last used together."""

    __slots__ = ("depth", "num_missing", "parts", "sizes")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        """Index in a prompt of its first part."""
        self.parts: list[bytes] = []
        self.sizes: list[int] = []
        """Blocks of each part."""
        self.num_missing = 0
        """Blocks of the last part that are gone."""

    @property
    def last_depth(self) -> int:
        """Index in a prompt of its last part."""
        return self.depth + len(self.parts) - 1
