"""Decisions that take too long: what went out stays, and the conversation's state goes on from that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import Compressed, Compressor, CompressorSettings, MemoryStore, Mode
from sluice.compressor.conversation import Conversation, Incoming
from sluice.compressor.cutoff import Cutoff
from sluice.compressor.judge import Keep, Verdict
from sluice.compressor.ledger import decode
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.settings import Prices
from tests.compressor.conversations import Json, call, encode, file_lines, numbered, result, turns
from tests.compressor.epochs import COLD_S, Clock, CoinScorer, check, send
from tests.effort import examples

LIMITS = CompressorSettings(num_exempt_results=2, rewrite_margin=1.0, state_timeout_s=10.0)
NEVER_REWRITTEN = replace(LIMITS, rewrite_margin=1e9)
BRIEF_S = 0.01


class Stalling:
    """A judge that stops at one of the questions of a turn, until it may go on."""

    def __init__(self, limits: CompressorSettings) -> None:
        self._judge = LineJudge(CoinScorer(), Prices(arrival=0.01, epoch=0.01), limits)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.num_left = 0
        self.num_conversations = 0

    def stall(self, num_left: int) -> None:
        """Answer so many questions, and no more."""
        self.num_left = num_left
        self.may_go_on.clear()

    def for_turn(self) -> Stalling:
        return self

    def new_conversation(self, settings: CompressorSettings) -> Conversation:
        self.num_conversations += 1
        return self._judge.new_conversation(settings)

    def at_arrival(self, conversation: Conversation, incoming: Incoming) -> Mapping[int, Keep]:
        self._asked()
        return self._judge.at_arrival(conversation, incoming)

    def candidates(self, conversation: Conversation) -> Sequence[int]:
        return self._judge.candidates(conversation)

    def at_epoch(
        self, conversation: Conversation, indexes: Sequence[int], num_tokens_to_shed: float
    ) -> Mapping[int, Verdict]:
        self._asked()
        return self._judge.at_epoch(conversation, indexes, num_tokens_to_shed)

    def _asked(self) -> None:
        if self.num_left == 0:
            assert self.may_go_on.wait(30)
        self.num_left -= 1


class Agent:
    """A compressor whose decisions take too long where a test wants it."""

    def __init__(self, store: MemoryStore, clock: Clock, limits: CompressorSettings = LIMITS) -> None:
        self.judge = Stalling(limits)
        self.limits = limits
        self.compressor = Compressor(store, limits, clock=clock, judges={Mode.BALANCED: self.judge})

    async def send(self, messages: Sequence[Json], stalls_after: int | None = None) -> Compressed:
        """One turn; it has no time where it stalls, and all that it takes where it does not."""
        timeout_s = None if stalls_after is None else BRIEF_S
        self.compressor._settings = replace(self.limits, decide_timeout_s=timeout_s)
        if stalls_after is not None:
            self.judge.stall(stalls_after)
        compressed = await send(self.compressor, messages)
        self.judge.may_go_on.set()
        return compressed

    async def come_to_its_end(self) -> None:
        """Wait for what is still decided."""
        if self.compressor._held._late:
            await asyncio.wait(list(self.compressor._held._late.values()))


def copied(store: MemoryStore) -> MemoryStore:
    other = copy(store)
    other._entries = store._entries.copy()
    other._ids_by_prefix = {key: set(ids) for key, ids in store._ids_by_prefix.items()}
    return other


def drawn_stops(data: st.DataObject, messages: Sequence[Json]) -> list[int]:
    stops, stop = [], 0
    while stop < len(messages):
        stop = min(len(messages), stop + data.draw(st.integers(1, 4)))
        stops.append(stop)
    return stops


STALLS = st.none() | st.integers(0, 4)


@examples(60)
@given(turns(min_size=4, max_size=16), st.data())
def test_what_was_forwarded_stays_whatever_comes_too_late(messages: list[Json], data: st.DataObject) -> None:
    async def run() -> None:
        store, clock = MemoryStore(), Clock()
        agent = Agent(store, clock)
        forwarded: list[bytes] = []
        for stop in drawn_stops(data, messages):
            clock.now_s += data.draw(st.sampled_from([1.0, 1.0, COLD_S]))
            compressed = await agent.send(messages[:stop], data.draw(STALLS))
            assert compressed.bypass in (None, "timeout")
            if compressed.epoch is None:
                assert compressed.messages[: len(forwarded)] == forwarded
            check(messages[:stop], compressed)
            forwarded = compressed.messages
            if data.draw(st.booleans()):
                await agent.come_to_its_end()
            again = await Agent(copied(store), clock).send(messages[:stop])
            assert again.messages == forwarded
        await agent.come_to_its_end()

    asyncio.run(run())


@examples(60)
@given(turns(min_size=4, max_size=16), st.data())
def test_a_process_that_was_late_decides_as_one_that_reads_the_ledger(
    messages: list[Json], data: st.DataObject
) -> None:
    async def run() -> None:
        store, clock = MemoryStore(), Clock()
        agent = Agent(store, clock, NEVER_REWRITTEN)
        for stop in drawn_stops(data, messages):
            clock.now_s += 1.0
            stall = data.draw(STALLS)
            other = Agent(copied(store), clock, NEVER_REWRITTEN)
            compressed = await agent.send(messages[:stop], stall)
            if stall is None:
                assert compressed.messages == (await other.send(messages[:stop])).messages
            if data.draw(st.booleans()):
                await agent.come_to_its_end()
        await agent.come_to_its_end()

    asyncio.run(run())


def conversation(num_reads: int) -> list[Json]:
    messages: list[Json] = [{"role": "user", "content": "go on"}]
    for number in range(num_reads):
        tag = f"c{number}"
        messages += [call(tag, "Read", file_path=f"{tag}.py"), result(tag, numbered(file_lines(30, tag)))]
    return messages


async def test_the_state_is_not_built_anew_after_a_decision_that_took_too_long() -> None:
    messages = conversation(6)
    agent = Agent(MemoryStore(), Clock(), NEVER_REWRITTEN)
    await agent.send(messages[:9])
    late = await agent.send(messages[:11], stalls_after=0)
    assert late.bypass == "timeout"
    assert late.messages[9:] == [encode(message) for message in messages[9:11]]
    next_one = await agent.send(messages[:13])  # while the late decision may not have ended
    assert next_one.bypass is None
    assert next_one.messages[:11] == late.messages
    assert agent.judge.num_conversations == 1


def test_a_process_that_was_forked_does_not_wait_for_what_its_parent_decides() -> None:
    """What is made on a loop that does not run here never comes."""
    messages = conversation(6)
    agent = Agent(MemoryStore(), Clock(), NEVER_REWRITTEN)
    agent.judge.stall(0)
    agent.compressor._settings = replace(NEVER_REWRITTEN, decide_timeout_s=BRIEF_S)
    parents = asyncio.new_event_loop()
    late = parents.run_until_complete(send(agent.compressor, messages[:9]))
    assert late.bypass == "timeout"
    made = list(agent.compressor._held._late.values())
    agent.judge.may_go_on.set()
    agent.compressor._settings = replace(NEVER_REWRITTEN, decide_timeout_s=10.0)
    following = asyncio.run(send(agent.compressor, messages[:11]))
    assert following.bypass is None
    assert following.messages[:9] == late.messages
    assert not agent.compressor._held._late
    parents.run_until_complete(asyncio.wait(made))
    parents.run_until_complete(parents.shutdown_default_executor())
    parents.close()


async def test_what_was_decided_in_time_is_forwarded_so() -> None:
    messages = conversation(3)
    patient, store = Agent(MemoryStore(), Clock(), NEVER_REWRITTEN), MemoryStore()
    decided = (await patient.send(messages)).messages
    agent = Agent(store, Clock(), NEVER_REWRITTEN)
    late = await agent.send(messages, stalls_after=5)
    assert late.bypass == "timeout"
    assert late.messages[:5] == decided[:5]
    assert late.messages[5:] == [encode(message) for message in messages[5:]]
    assert decided[6] != late.messages[6]
    turns_told = [found.turn for _, data in store._entries.values() if (found := decode(data)) and found.turn]
    assert [turn.num_turns for turn in turns_told] == [1], "the next turn has to know when this one was"
    await agent.come_to_its_end()


async def test_a_turn_that_waits_for_a_late_state_in_vain_goes_out_and_the_one_after_it_goes_on() -> None:
    messages = conversation(6)
    agent = Agent(MemoryStore(), Clock(), NEVER_REWRITTEN)
    await agent.send(messages[:7])
    agent.judge.stall(0)
    agent.compressor._settings = replace(NEVER_REWRITTEN, decide_timeout_s=BRIEF_S)
    first = await send(agent.compressor, messages[:9])
    second = await send(agent.compressor, messages[:11])
    assert (first.bypass, second.bypass) == ("timeout", "timeout")
    assert second.messages[9:] == [encode(message) for message in messages[9:11]]
    agent.judge.may_go_on.set()
    third = await agent.send(messages[:13])
    assert third.messages[:11] == second.messages
    assert agent.judge.num_conversations == 1


async def test_what_another_worker_forwarded_is_not_mistaken_for_what_came_late() -> None:
    messages = conversation(4)
    store, clock = MemoryStore(), Clock()
    agent, other = Agent(store, clock, NEVER_REWRITTEN), Agent(store, clock, NEVER_REWRITTEN)
    await agent.send(messages[:5])
    agent.judge.stall(0)
    agent.compressor._settings = replace(NEVER_REWRITTEN, decide_timeout_s=0.2)
    late = asyncio.create_task(send(agent.compressor, messages[:7]))
    await asyncio.sleep(0.05)
    theirs = await other.send(messages[:7])
    assert (await late).messages == theirs.messages
    assert not agent.compressor._held._late
    agent.judge.may_go_on.set()
    reader = Agent(copied(store), clock, NEVER_REWRITTEN)
    assert (await agent.send(messages)).messages == (await reader.send(messages)).messages


def test_a_decision_counts_as_a_whole_or_not_at_all() -> None:
    cutoff, taken = Cutoff(), list[int]()
    assert cutoff.take(lambda: taken.append(1))
    assert cutoff.come(lambda: list(taken)) == [1]
    assert cutoff.has_come
    assert not cutoff.take(lambda: taken.append(2))
    assert taken == [1]
