"""What is kept of a conversation's last request changes what a turn costs, and nothing of what goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT, Compressed, Compressor, CompressorSettings, MemoryStore, Mode
from sluice.compressor import trail as trail_module
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.settings import Prices
from tests.compressor.conversations import Json, call, encode, file_lines, numbered, result, turns
from tests.compressor.epochs import COLD_S, Clock, CoinScorer
from tests.effort import examples

LIMITS = CompressorSettings(num_exempt_results=2, rewrite_margin=1.0, state_timeout_s=10.0)


def make(clock: Clock, store: MemoryStore, *, keeps: bool) -> Compressor:
    judge = LineJudge(CoinScorer(), Prices(arrival=0.01, epoch=0.01), LIMITS)
    limits = LIMITS if keeps else replace(LIMITS, max_conversation_bytes=0, max_trail_bytes=0)
    return Compressor(store, limits, clock=clock, judges={Mode.BALANCED: judge})


async def send(compressor: Compressor, messages: Sequence[Json], mode: Mode = Mode.SAFE) -> Compressed:
    raws = [encode(message) for message in messages]
    return await compressor.compress(raws, dialect=OPENAI_CHAT, mode=mode, tenant=b"t", upstream="http://up")


@pytest.fixture(autouse=True)
def from_the_first_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail_module, "_MIN_MESSAGES", 1)


@examples(150)
@given(turns(min_size=3, max_size=14), st.data())
def test_what_goes_out_is_the_same_with_and_without(messages: list[Json], data: st.DataObject) -> None:
    """Turns, retries, rewinds, branches, `cache_control` that moves, and clients that change what they sent before."""

    async def run() -> None:
        clock = Clock()
        with_trails, without = (make(clock, MemoryStore(), keeps=keeps) for keeps in (True, False))
        history, stop = list(messages), 1
        for _ in range(data.draw(st.integers(3, 12))):
            step = data.draw(st.sampled_from(["turn"] * 5 + ["again", "rewind", "branch", "change", "mark"]))
            if step == "rewind":
                stop = data.draw(st.integers(1, stop))
            elif step == "branch":
                history[stop - 1 :] = [{"role": "user", "content": f"no, {data.draw(st.integers(0, 3))}"}]
            elif step == "change":
                at = data.draw(st.integers(0, stop - 1))
                history[at] = {**history[at], "content": f"changed {data.draw(st.integers(0, 2))}"}
            elif step == "turn":
                stop = min(len(history), stop + data.draw(st.integers(1, 4)))
            stop = min(stop, len(history))
            clock.now_s += data.draw(st.sampled_from([1.0, 1.0, COLD_S, 700.0]))
            sent = history[:stop]
            if step == "mark":
                sent = [*sent[:-1], {**sent[-1], "cache_control": {"type": "ephemeral"}}]
            mode = data.draw(st.sampled_from([Mode.BALANCED, Mode.BALANCED, Mode.SAFE]))
            assert await send(with_trails, sent, mode) == await send(without, sent, mode)

    asyncio.run(run())


class CountingStore(MemoryStore):
    """Notes how many keys are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked.append(len(keys))
        return await super().get_many(keys)


def conversation(num_reads: int) -> list[Json]:
    messages: list[Json] = [{"role": "user", "content": "fix it"}]
    for index in range(num_reads):
        messages.append(call(f"c{index}", "Read", file_path=f"{index % 7}.py"))
        messages.append(result(f"c{index}", numbered(file_lines(20, str(index % 7)))))
    return messages


async def test_a_turn_asks_for_its_new_messages_alone_until_all_are_due() -> None:
    store, clock = CountingStore(), Clock()
    compressor = make(clock, store, keeps=True)
    messages = conversation(60)
    for stop in range(1, len(messages) + 1, 2):
        clock.now_s += 1
        await send(compressor, messages[:stop])
    assert max(store.asked[1:]) <= 6
    clock.now_s += 700
    await send(compressor, messages)
    assert store.asked[-1] > len(messages), (
        "so that old records live on in a store that lets go of what nobody asks for"
    )


async def test_another_workers_epoch_is_found() -> None:
    store, clock = MemoryStore(), Clock()
    one, other = (make(clock, store, keeps=True) for _ in range(2))
    messages = conversation(12)
    for stop in range(1, 20, 2):
        clock.now_s += 1
        await send(one, messages[:stop], Mode.BALANCED)
    clock.now_s += COLD_S
    rewritten = await send(other, messages[:21], Mode.BALANCED)
    assert rewritten.epoch == "cold"
    assert (await send(one, messages[:21], Mode.BALANCED)).messages == rewritten.messages
    clock.now_s += 1
    assert (await send(one, messages[:23], Mode.BALANCED)).messages[:21] == rewritten.messages


async def test_branches_that_parted_early_and_take_turns_do_not_push_each_other_out() -> None:
    store, clock = CountingStore(), Clock()
    compressor = make(clock, store, keeps=True)

    def branch(name: str, num_turns: int) -> list[Json]:
        turns = [(f"{name} {number}", f"{name} {number}?") for number in range(num_turns)]
        said = [({"role": "assistant", "content": a}, {"role": "user", "content": b}) for a, b in turns]
        return [{"role": "user", "content": "go"}, *(message for pair in said for message in pair)]

    for num_turns in range(20):
        if num_turns == 6:
            store.asked.clear()
        for name in ("one", "other"):
            clock.now_s += 1
            await send(compressor, branch(name, num_turns))
    assert max(store.asked) <= 6


async def test_an_end_that_is_another_on_every_turn_makes_no_branches() -> None:
    compressor = make(Clock(), MemoryStore(), keeps=True)
    messages = conversation(20)
    for stop in range(1, len(messages) + 1, 2):
        await send(compressor, [*messages[:stop], {"role": "user", "content": f"reminder {stop}"}])
    assert [len(trails) for trails, _ in compressor._trails._trails._items.values()] == [1]


async def test_what_is_kept_is_bounded_by_bytes_of_images_too() -> None:
    limits = replace(LIMITS, max_trail_bytes=1_000_000)
    store, clock = CountingStore(), Clock()
    compressor = Compressor(store, limits, clock=clock)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200_000}}

    def looked_at(name: str) -> list[Json]:
        messages: list[Json] = [{"role": "user", "content": f"go, {name}"}]
        for number in range(4):
            messages += [call(f"s{number}", "screenshot"), {"role": "user", "content": [image]}]
        return messages

    for name in ("one", "other"):
        await send(compressor, looked_at(name))
    store.asked.clear()
    await send(compressor, [*looked_at("one"), {"role": "assistant", "content": "done"}])
    assert store.asked[0] > 9, "the first conversation had to make room"


async def test_branches_of_one_beginning_are_each_known_again() -> None:
    store, clock = CountingStore(), Clock()
    compressor = make(clock, store, keeps=True)
    branches = [[*conversation(20), {"role": "user", "content": f"branch {index}"}] for index in range(3)]
    for branch in branches:
        await send(compressor, branch)
    store.asked.clear()
    clock.now_s += 1
    for branch in branches:
        await send(compressor, [*branch, {"role": "assistant", "content": "done"}])
    assert max(store.asked) <= 6
