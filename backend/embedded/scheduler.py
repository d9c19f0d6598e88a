"""Decides what each step computes: continuous batching with chunked prefill, preemption by recompute, fair admission.

A step is a plain function of the scheduler's state. Decoding sequences go first, so that no prompt stalls a stream;
what is left of the token budget goes to prompts in order of arrival. Knows no tensors, threads or clocks.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections import deque
from dataclasses import dataclass, field

from sluice.backend.embedded.block_manager import BlockManager, chain_hash
from sluice.backend.embedded.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A sequence's part of a step: compute its next tokens."""

    sequence: Sequence
    num_tokens: int
    """Tokens to compute: pending ones, then draft."""
    draft: tuple[int, ...] = ()
    """Tokens beyond the pending ones that are verified in this step."""

    @property
    def is_sampled(self) -> bool:
        """Whether the last known token is computed, so that the next one can be chosen."""
        return self.num_tokens - len(self.draft) == self.sequence.num_pending_tokens


@dataclass(slots=True)
class Step:
    """What one forward pass does."""

    scheduled: list[Scheduled] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    """Blocks to copy before the pass: from, to."""
    admitted: list[Sequence] = field(default_factory=list)
    """Sequences that begin."""
    preempted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """Waiting and running sequences, both in order of arrival.

    The cache must hold at least one sequence of the greatest length; then the oldest can always go on, and nobody
    starves.
    """

    def __init__(self, blocks: BlockManager, *, max_num_sequences: int, max_num_batched_tokens: int) -> None:
        self.blocks = blocks
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._max_num_sequences = max_num_sequences
        self._max_num_batched_tokens = max_num_batched_tokens

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait for its turn."""
        self.waiting.append(sequence)

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let `child`, a copy of a running sequence, go on from the same blocks."""
        child.num_computed_tokens = parent.num_computed_tokens
        child.num_cached_tokens = parent.num_cached_tokens
        child.block_table = parent.block_table[:]
        child.block_hashes = list(parent.block_hashes)
        child.num_registered_blocks = parent.num_registered_blocks
        self.blocks.hold(child.block_table)
        insort(self.running, child, key=lambda sequence: sequence.sequence_id)

    def remove(self, sequence: Sequence) -> None:
        """End a sequence, finished or cancelled; its blocks are free at once. No error if it is not here."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._release(sequence)

    def schedule(self) -> Step:
        """Choose the next step's work and take the blocks for it."""
        step = Step()
        budget = self._max_num_batched_tokens
        decoding = [sequence for sequence in self.running if sequence.is_decoding]
        prefilling = [sequence for sequence in self.running if not sequence.is_decoding]
        for sequence in decoding + prefilling:
            if budget == 0:
                break
            if sequence in step.preempted:
                continue
            num_preempted = len(step.preempted)
            if scheduled := self._continue(sequence, budget, step):
                step.scheduled.append(scheduled)
                budget -= scheduled.num_tokens
            if len(step.preempted) > num_preempted:  # what they were to compute is free for others
                budget = self._max_num_batched_tokens - sum(item.num_tokens for item in step.scheduled)
        while self.waiting and budget > 0 and not step.preempted and len(self.running) < self._max_num_sequences:
            admitted = self._admit(self.waiting[0], budget)
            if admitted is None:
                break
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            if sequence.num_preemptions == 0:
                step.admitted.append(sequence)
            step.scheduled.append(admitted)
            budget -= admitted.num_tokens
        return step

    def update(self, scheduled: Scheduled, new_tokens: list[int]) -> None:
        """Note what a step brought: `new_tokens` are the accepted draft tokens and the one after them, if any."""
        sequence = scheduled.sequence
        num_known = scheduled.num_tokens - len(scheduled.draft)
        sequence.num_computed_tokens += num_known + max(0, len(new_tokens) - 1)
        sequence.tokens.extend(new_tokens)
        sequence.draft = ()
        self._register(sequence)

    def _continue(self, sequence: Sequence, budget: int, step: Step) -> Scheduled | None:
        """Blocks for a running sequence's next tokens, preempting the newest if need be."""
        num_pending = sequence.num_pending_tokens
        num_known = min(num_pending, budget)
        draft = tuple(sequence.draft[: budget - num_known]) if num_known == num_pending else ()
        while not self._reserve(sequence, num_known + len(draft), step):
            if draft:
                draft = ()
                continue
            victim = self.running[-1]
            self._preempt(victim, step)
            if victim is sequence:
                return None
        return Scheduled(sequence, num_known + len(draft), draft)

    def _reserve(self, sequence: Sequence, num_tokens: int, step: Step) -> bool:
        """Make the next tokens' blocks the sequence's own; False, and nothing is changed, if too few are available."""
        table = sequence.block_table
        num_missing = self.blocks.blocks_for(sequence.num_computed_tokens + num_tokens) - len(table)
        first = sequence.num_computed_tokens // self.blocks.block_size
        shared = [index for index in range(first, len(table)) if self.blocks.count(table[index]) > 1]
        if max(num_missing, 0) + len(shared) > self.blocks.num_available:
            return False
        for index in shared:
            copy = self.blocks.copy_on_write(table[index])
            assert copy is not None
            step.copies.append((table[index], copy))
            table[index] = copy
        if num_missing > 0:
            table.extend(self.blocks.allocate(num_missing, after=table[-1] if table else None))
        return True

    def _admit(self, sequence: Sequence, budget: int) -> Scheduled | None:
        """Blocks for a waiting sequence: those with its beginning that are known, and new ones for the rest of it."""
        found = self.blocks.find(self._hashes(sequence, (len(sequence.tokens) - 1) // self.blocks.block_size))
        num_new = self.blocks.blocks_for(len(sequence.tokens)) - len(found)
        num_spare = self.blocks.num_available - self.blocks.num_cached_among(found)
        if num_new + len(self.running) > num_spare:  # one each for those that run, or the newest is soon sent back
            return None
        self.blocks.hold(found)
        new = self.blocks.allocate(num_new, after=found[-1] if found else None)
        sequence.block_table = array("i", found + new)
        sequence.num_computed_tokens = len(found) * self.blocks.block_size
        sequence.num_registered_blocks = len(found)
        if sequence.num_preemptions == 0:
            sequence.num_cached_tokens = sequence.num_computed_tokens
        return Scheduled(sequence, min(sequence.num_pending_tokens, budget))

    def _preempt(self, victim: Sequence, step: Step) -> None:
        """Send the newest running sequence back to wait; it is computed again later, from what is then still cached."""
        assert victim is self.running[-1]
        self.running.pop()
        step.scheduled = [item for item in step.scheduled if item.sequence is not victim]
        step.copies = [copy for copy in step.copies if copy[1] not in victim.block_table]
        step.preempted.append(victim)
        self._release(victim)
        victim.num_preemptions += 1
        self.waiting.appendleft(victim)

    def _release(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.block_table)
        sequence.block_table = array("i")
        sequence.num_computed_tokens = sequence.num_registered_blocks = 0
        sequence.draft = ()

    def _register(self, sequence: Sequence) -> None:
        """Make the blocks that have become full findable."""
        num_full = sequence.num_computed_tokens // self.blocks.block_size
        if num_full > sequence.num_registered_blocks:
            hashes = self._hashes(sequence, num_full)
            for index in range(sequence.num_registered_blocks, num_full):
                self.blocks.register(sequence.block_table[index], hashes[index])
            sequence.num_registered_blocks = num_full

    def _hashes(self, sequence: Sequence, num_blocks: int) -> list[bytes]:
        """Chained hashes of the first full blocks."""
        size, hashes = self.blocks.block_size, sequence.block_hashes
        while len(hashes) < num_blocks:
            start = len(hashes) * size
            hashes.append(chain_hash(hashes[-1] if hashes else b"", sequence.tokens[start : start + size]))
        return hashes[:num_blocks]
