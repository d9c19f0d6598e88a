from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.base import SamplingParams
from sluice.backend.embedded.block_manager import BlockManager
from sluice.backend.embedded.scheduler import Scheduler, Step
from sluice.backend.embedded.sequence import Sequence
from tests.effort import examples

BLOCK_SIZE = 4
NUM_BLOCKS = 16
MAX_LEN = BLOCK_SIZE * NUM_BLOCKS


def make(num_blocks: int = NUM_BLOCKS, max_num_sequences: int = 4, budget: int = 16) -> Scheduler:
    blocks = BlockManager(num_blocks, BLOCK_SIZE)
    return Scheduler(blocks, max_num_sequences=max_num_sequences, max_num_batched_tokens=budget)


def sequence(sequence_id: int, tokens: list[int]) -> Sequence:
    return Sequence(sequence_id, list(tokens), SamplingParams())


def check(scheduler: Scheduler, step: Step, budget: int) -> None:
    """What must hold of every step."""
    num_tokens = sum(item.num_tokens for item in step.scheduled)
    assert num_tokens <= budget
    assert all(item.num_tokens > 0 for item in step.scheduled)
    assert len({item.sequence.sequence_id for item in step.scheduled}) == len(step.scheduled)
    used = Counter(block for seq in scheduler.running for block in seq.block_table)
    for block in range(scheduler.blocks.num_blocks):
        assert scheduler.blocks.count(block) == used[block]
    written: Counter[int] = Counter()
    for item in step.scheduled:
        seq = item.sequence
        end = seq.num_computed_tokens + item.num_tokens
        assert len(seq.block_table) * BLOCK_SIZE >= end
        for index in range(seq.num_computed_tokens // BLOCK_SIZE, -(-end // BLOCK_SIZE)):
            written[seq.block_table[index]] += 1
            assert used[seq.block_table[index]] == 1, "a block that is written to belongs to one sequence alone"
    assert not written or max(written.values()) == 1
    assert [seq.sequence_id for seq in scheduler.running] == sorted(seq.sequence_id for seq in scheduler.running)
    waiting = [seq.sequence_id for seq in scheduler.waiting]
    assert waiting == sorted(waiting)


def advance(scheduler: Scheduler, step: Step, rng: random.Random) -> None:
    for item in step.scheduled:
        new = []
        if item.is_sampled:
            new = [*item.draft[: rng.randint(0, len(item.draft))], rng.randint(0, 2)]
        scheduler.update(item, new)


@examples(60)
@given(st.integers(0, 10**6), st.integers(1, 24))
def test_random_work_is_done_whole_and_leaves_every_block_free(seed: int, budget: int) -> None:
    rng = random.Random(seed)
    budget = max(budget, 4)
    scheduler = make(budget=budget)
    wanted: dict[int, int] = {}
    live: dict[int, Sequence] = {}
    for number in range(12):
        seq = sequence(10 * number, [rng.randint(0, 2) for _ in range(rng.randint(1, 40))])
        wanted[seq.sequence_id] = rng.randint(1, MAX_LEN - len(seq.tokens) - 3) if len(seq.tokens) < MAX_LEN - 4 else 1
        live[seq.sequence_id] = seq
        scheduler.add(seq)
    for _ in range(4000):
        if not live:
            break
        step = scheduler.schedule()
        assert step.scheduled or step.preempted, "there is work, so something is done"
        check(scheduler, step, budget)
        advance(scheduler, step, rng)
        for seq in list(live.values()):
            if seq.num_output_tokens >= wanted[seq.sequence_id] or rng.random() < 0.005:
                scheduler.remove(seq)
                del live[seq.sequence_id]
            elif seq in scheduler.running and seq.is_decoding:
                room = min(3, MAX_LEN - len(seq.tokens) - 1)
                seq.draft = [rng.randint(0, 2) for _ in range(rng.randint(0, room))]
                if rng.random() < 0.03 and len(scheduler.running) < 4:
                    child = sequence(seq.sequence_id + 1, seq.tokens)
                    child.num_prompt_tokens = seq.num_prompt_tokens
                    if child.sequence_id not in wanted:
                        wanted[child.sequence_id] = wanted[seq.sequence_id]
                        live[child.sequence_id] = child
                        scheduler.fork(seq, child)
    assert not live, "nobody starves"
    assert not scheduler.has_work
    assert scheduler.blocks.num_available == NUM_BLOCKS


def test_decoding_goes_before_prompts_and_prompts_are_cut_to_the_budget() -> None:
    scheduler = make()
    first, second = sequence(0, [1] * 3), sequence(1, [2] * 30)
    scheduler.add(first)
    scheduler.update(scheduler.schedule().scheduled[0], [7])
    scheduler.add(second)
    step = scheduler.schedule()
    assert [(item.sequence, item.num_tokens) for item in step.scheduled] == [(first, 1), (second, 15)]
    assert step.scheduled[0].is_sampled
    assert not step.scheduled[1].is_sampled


def test_a_known_beginning_is_not_computed_again() -> None:
    scheduler = make()
    prompt = list(range(11))
    first = sequence(0, prompt)
    scheduler.add(first)
    scheduler.update(scheduler.schedule().scheduled[0], [7])
    second = sequence(1, prompt)
    scheduler.add(second)
    item = scheduler.schedule().scheduled[1]
    assert (item.sequence, item.num_tokens) == (second, 3)
    assert second.num_cached_tokens == 8
    assert second.block_table[:2] == first.block_table[:2]
    assert second.block_table[2] != first.block_table[2]


def test_a_prompt_that_is_known_whole_is_still_computed_at_its_last_token() -> None:
    scheduler = make()
    for number in range(2):
        scheduler.add(sequence(number, list(range(8))))
        item = scheduler.schedule().scheduled[-1]
        scheduler.update(item, [7])
        scheduler.remove(item.sequence)
    assert item.sequence.num_cached_tokens == 4


def test_the_newest_is_preempted_and_comes_back() -> None:
    scheduler = make(num_blocks=4)
    old, new = sequence(0, [1] * 4), sequence(1, [2] * 4)
    for seq in (old, new):
        scheduler.add(seq)
    for item in scheduler.schedule().scheduled:
        scheduler.update(item, [3])
    preempted: list[Sequence] = []
    while old.num_output_tokens < 12:
        step = scheduler.schedule()
        preempted += step.preempted
        for item in step.scheduled:
            scheduler.update(item, [3])
    assert set(preempted) == {new}
    scheduler.remove(old)
    (item,) = scheduler.schedule().scheduled
    assert item.sequence is new


def test_a_cancelled_sequence_frees_its_blocks_at_once() -> None:
    scheduler = make()
    seq = sequence(0, [1] * 20)
    scheduler.add(seq)
    scheduler.schedule()
    assert scheduler.blocks.num_available < NUM_BLOCKS
    scheduler.remove(seq)
    assert scheduler.blocks.num_available == NUM_BLOCKS
    assert not scheduler.has_work


def test_a_fork_shares_blocks_until_one_writes() -> None:
    scheduler = make()
    parent = sequence(0, [1] * 6)
    scheduler.add(parent)
    scheduler.update(scheduler.schedule().scheduled[0], [7])
    child = sequence(1, [*parent.tokens[:-1], 8])
    scheduler.fork(parent, child)
    assert child.block_table == parent.block_table
    step = scheduler.schedule()
    assert len(step.scheduled) == 2
    assert child.block_table[0] == parent.block_table[0]
    assert child.block_table[1] != parent.block_table[1]
    assert len(step.copies) == 1


def test_rejected_drafts_leave_no_trace() -> None:
    scheduler = make()
    seq = sequence(0, [1] * 5)
    scheduler.add(seq)
    scheduler.update(scheduler.schedule().scheduled[0], [7])
    seq.draft = [7, 7, 7]
    (item,) = scheduler.schedule().scheduled
    assert (item.num_tokens, item.draft) == (4, (7, 7, 7))
    scheduler.update(item, [7, 9])
    assert seq.tokens == [1] * 5 + [7, 7, 9]
    assert seq.num_computed_tokens == 7
    assert seq.is_decoding
