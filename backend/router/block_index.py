"""Which blocks each replica holds, by what vLLM publishes of its KV cache; and which blocks a conversation has.

Blocks are named by digests of our own, chained over token ids, so that replicas may hash as they like. What a new
message holds is cached nowhere, so the blocks of a conversation's earlier turns are all that routing needs: they are
learned once a turn was sent, and no request waits for a tokenizer.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from sluice.backend.router.kv_events import BlocksRemoved, BlocksStored, Cleared, KvEvent
from sluice.backend.router.prompt import Prompt

MAX_KNOWN_BLOCKS = 4_000_000
"""Blocks of conversations remembered in all."""
_GROUPS = (None, 0)
"""Models with several kinds of attention publish each block once a kind; the first is followed."""


def block_digests(token_ids: Sequence[int], block_tokens: int, parent: bytes = b"") -> list[bytes]:
    """Digests (8 bytes) of the full blocks, each over all that stands before it."""
    packed = memoryview(array("I", token_ids)).cast("B")
    size = block_tokens * 4
    found, head = [], parent
    for start in range(0, len(packed) - size + 1, size):
        head = blake2b(head + packed[start : start + size], digest_size=8).digest()
        found.append(head)
    return found


class BlockIndex:
    """What replicas hold."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}

    def apply(self, replica: str, event: KvEvent) -> None:
        """Follow one event; a block whose parent is not known (its event was missed) is skipped."""
        held = self._replicas.setdefault(replica, _Replica())
        if isinstance(event, Cleared):
            held.clear()
        elif event.group in _GROUPS:
            if isinstance(event, BlocksStored):
                held.store(event)
            else:
                held.remove(event)

    def clear(self, replica: str) -> None:
        """Forget what a replica holds; that it publishes at all is remembered."""
        if replica in self._replicas:
            self._replicas[replica].clear()

    def lost(self, replica: str) -> None:
        """Some of a replica's events were missed: it may hold more than is known, until it is cleared."""
        held = self._replicas.setdefault(replica, _Replica())
        held.clear()
        held.is_complete = False

    def is_complete(self, replica: str) -> bool:
        """Whether a replica publishes, and all that it holds is known."""
        held = self._replicas.get(replica)
        return held is not None and held.block_tokens is not None and held.is_complete

    def block_tokens(self, replica: str) -> int | None:
        """Tokens of a block there; None while nothing was published."""
        held = self._replicas.get(replica)
        return held.block_tokens if held is not None else None

    def num_blocks(self, replica: str) -> int:
        """Blocks that a replica holds."""
        held = self._replicas.get(replica)
        return len(held.digests) if held is not None else 0

    def match(self, replica: str, digests: Sequence[bytes]) -> int:
        """How many of the leading blocks a replica holds.

        vLLM evicts a prompt's last blocks first, so that what is held of it is a prefix, which is found by bisection.
        """
        held = self._replicas.get(replica)
        if held is None:
            return 0
        return bisect_left(digests, True, key=lambda digest: digest not in held.digests)


class ConversationBlocks:
    """The blocks of prompts that were sent, by the last part of each; those used longest ago go first."""

    def __init__(self, max_blocks: int = MAX_KNOWN_BLOCKS) -> None:
        self._known: OrderedDict[bytes, tuple[list[bytes], int]] = OrderedDict()
        self._max_blocks = max_blocks
        self._num_blocks = 0

    def learn(self, prompt: Prompt, token_ids: Sequence[int], block_tokens: int) -> None:
        """Remember a prompt's blocks. Those of the prompts that it continues are forgotten: it has them, too."""
        for part in prompt.hashes[:-1]:
            self._forget(part)
        self._forget(prompt.hashes[-1])
        digests = block_digests(token_ids, block_tokens)
        self._known[prompt.hashes[-1]] = (digests, len(token_ids))
        self._num_blocks += len(digests)
        while self._num_blocks > self._max_blocks:
            self._forget(next(iter(self._known)))

    def find(self, prompt: Prompt) -> tuple[list[bytes], float] | None:
        """Blocks of the longest known prompt that this one continues, and estimated tokens for each real one."""
        for part, end in zip(reversed(prompt.hashes), reversed(prompt.ends), strict=True):
            if (known := self._known.get(part)) is not None:
                self._known.move_to_end(part)
                digests, num_tokens = known
                return digests, end / max(1, num_tokens)
        return None

    def _forget(self, part: bytes) -> None:
        if (known := self._known.pop(part, None)) is not None:
            self._num_blocks -= len(known[0])


class _Replica:
    """What one replica holds."""

    def __init__(self) -> None:
        self.block_tokens: int | None = None
        self.is_complete = True
        self.digests: set[bytes] = set()
        self._digest_of: dict[int | bytes, bytes] = {}
        self._media: dict[int | bytes, set[str]] = {}

    def clear(self) -> None:
        self.is_complete = True
        self.digests.clear()
        self._digest_of.clear()
        self._media.clear()

    def store(self, event: BlocksStored) -> None:
        parent = b"" if event.parent is None else self._digest_of.get(event.parent)
        if parent is None:
            return
        self.block_tokens = event.block_tokens
        for block, digest in zip(
            event.blocks, block_digests(event.token_ids, event.block_tokens, parent), strict=False
        ):
            self._digest_of[block] = digest
            self._media.setdefault(block, set()).add(event.medium)
            self.digests.add(digest)

    def remove(self, event: BlocksRemoved) -> None:
        for block in event.blocks:
            media = self._media.get(block)
            if media is None:
                continue
            media.discard(event.medium)
            if not media:  # no tier has it any more
                del self._media[block]
                self.digests.discard(self._digest_of.pop(block))
