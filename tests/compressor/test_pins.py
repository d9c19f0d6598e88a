"""Lines that a person pinned: given back once, kept at every rewrite, and never at the price of what was sent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sluice.compressor import (
    OPENAI_CHAT,
    Compressor,
    CompressorSettings,
    MemoryStore,
    Mode,
    Pin,
    TooManyPinsError,
)
from sluice.compressor.ledger import Reason, recall_id
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.pins import decode as decode_pin
from sluice.compressor.pins import encode as encode_pin
from sluice.compressor.pins import pinned_gaps, pinned_lines
from sluice.compressor.recovery import render, without
from sluice.compressor.settings import Prices
from tests.compressor.conversations import Json, call, encode, file_lines, numbered, result, turns
from tests.compressor.epochs import COLD_S, Clock, CoinScorer, check, send
from tests.compressor.test_recovery import gap
from tests.effort import examples

LINES = numbered(file_lines(60)).split("\n")


def make(store: MemoryStore, clock: Clock, max_pins: int = 4) -> Compressor:
    limits = CompressorSettings(num_exempt_results=1, max_pins=max_pins, state_timeout_s=10.0)
    judge = LineJudge(CoinScorer(), Prices(arrival=0.01, epoch=0.01), limits)
    return Compressor(store, limits, clock=clock, judges={Mode.BALANCED: judge})


def id_of(message: Json) -> str:
    return recall_id(OPENAI_CHAT.parse(encode(message)).identity, 0)


def step(number: int, text: str) -> list[Json]:
    return [call(f"call_{number}", "Read", file_path=f"f{number}.py"), result(f"call_{number}", text)]


def other(number: int) -> list[Json]:
    return step(number, numbered(file_lines(30, tag=f"other{number}_")))


async def test_what_is_pinned_is_given_back_once_and_then_kept() -> None:
    store, clock = MemoryStore(), Clock()
    compressor = make(store, clock)
    messages: list[Json] = [{"role": "user", "content": "fix it"}, *step(1, "\n".join(LINES))]
    first = await send(compressor, messages)
    omitted = next(o for o in first.renditions[2].omitted if o.reason is Reason.NOT_NEEDED)
    assert omitted.score is not None
    assert omitted.score < 0.5
    lost = LINES[omitted.start : omitted.stop]
    text = str(json.loads(first.messages[2])["content"])
    assert not any(line in text for line in lost)

    pin = Pin(id_of(messages[2]), omitted.start, omitted.stop)
    root = bytes.fromhex(first.conversation)
    await compressor.pin(root, pin)
    await compressor.pin(root, pin)
    assert await compressor.pins(root) == [pin]

    messages += other(2)
    second = await send(make(store, clock), messages)  # another worker, which has to look the pin up
    assert second.messages[:3] == first.messages, "what was sent once stays as it was"
    newest = str(json.loads(second.messages[-1])["content"])
    assert "\n".join(lost) in newest
    assert newest.count("of message 3 again") == 1

    messages += other(3)
    third = await send(compressor, messages)
    assert third.messages[:5] == second.messages
    assert "again" not in str(json.loads(third.messages[-1])["content"])

    for number in range(4, 9):
        messages += other(number)
        await send(compressor, messages)
    clock.now_s += COLD_S
    messages += other(9)
    rewritten = await send(compressor, messages)
    assert rewritten.epoch == "cold"
    shown = "\n".join(str(json.loads(raw)["content"]) for raw in rewritten.messages)
    assert all(line in shown for line in lost)
    assert rewritten.messages[2] != first.messages[2]
    assert "\n".join(lost) in str(json.loads(rewritten.messages[2])["content"]), "an epoch keeps them in their place"


async def test_what_was_pinned_is_taken_back_and_pinned_again() -> None:
    compressor, name = make(MemoryStore(), Clock(), max_pins=8), "0" * 32

    async def lines() -> list[int]:
        return sorted(pinned_lines(await compressor.pins(b"root"), name))

    await compressor.pin(b"root", Pin(name, 2, 8, is_set=False))
    assert await compressor.pins(b"root") == [], "there is nothing to be taken back"
    await compressor.pin(b"root", Pin(name, 2, 8))
    await compressor.pin(b"root", Pin("1" * 32, 0, 1))
    await compressor.pin(b"root", Pin(name, 3, 5, is_set=False))
    assert await lines() == [2, 5, 6, 7]
    await compressor.pin(b"root", Pin(name, 2, 8))
    assert await lines() == [2, 3, 4, 5, 6, 7]
    await compressor.pin(b"root", Pin(name, 0, 9, is_set=False))
    assert await lines() == []
    assert len(await compressor.pins(b"root")) == 5


async def test_what_is_pinned_no_longer_is_not_given_back() -> None:
    compressor = make(MemoryStore(), Clock())
    messages: list[Json] = [{"role": "user", "content": "fix it"}, *step(1, "\n".join(LINES))]
    first = await send(compressor, messages)
    omitted = next(o for o in first.renditions[2].omitted if o.reason is Reason.NOT_NEEDED)
    pin = Pin(id_of(messages[2]), omitted.start, omitted.stop)
    for is_set in (True, False):
        await compressor.pin(bytes.fromhex(first.conversation), replace(pin, is_set=is_set))
    second = await send(compressor, [*messages, *other(2)])
    assert second.messages[:3] == first.messages
    assert "again" not in str(json.loads(second.messages[-1])["content"])


async def test_a_conversation_has_a_bound_on_its_pins() -> None:
    compressor = make(MemoryStore(), Clock(), max_pins=2)
    for start in range(2):
        await compressor.pin(b"root", Pin("0" * 32, start, start + 1))
    with pytest.raises(TooManyPinsError, match="2 times"):
        await compressor.pin(b"root", Pin("0" * 32, 2, 3))
    assert await compressor.pins(b"other") == []


async def test_without_pins_nothing_is_looked_up() -> None:
    class Counting(MemoryStore):
        async def get_many(self, keys: Any) -> Any:
            asked.append(len(keys))
            return await super().get_many(keys)

    sizes = []
    for max_pins in (0, 4):
        asked: list[int] = []
        await send(make(Counting(), Clock(), max_pins), [{"role": "user", "content": "fix it"}])
        sizes.append(asked)
    assert sizes == [[2], [3]], "one more key in the same round trip, and only where pins are on"


@examples(100)
@given(turns(min_size=4, max_size=14), st.data())
def test_pins_rewrite_nothing_and_hold_from_the_next_result_on(messages: list[Json], data: st.DataObject) -> None:
    async def run() -> None:
        store, clock = MemoryStore(), Clock()
        compressor = make(store, clock)
        forwarded: list[bytes] = []
        wanted: list[list[str]] = []
        for stop in range(1, len(messages) + 1):
            clock.now_s += data.draw(st.sampled_from([1.0, 1.0, COLD_S]))
            compressed = await send(compressor, messages[:stop])
            if compressed.epoch is None:
                assert compressed.messages[: len(forwarded)] == forwarded
            check(messages[:stop], compressed)
            forwarded = compressed.messages
            if messages[stop - 1]["role"] == "tool":
                shown = "\n".join(str(json.loads(raw).get("content")) for raw in forwarded).split("\n")
                assert all(line in shown for lines in wanted for line in lines)
            dropped = [
                (index, omitted)
                for index, rendition in enumerate(compressed.renditions)
                for omitted in rendition.omitted
                if omitted.reason is Reason.NOT_NEEDED
            ]
            if dropped and len(wanted) < 4 and data.draw(st.booleans()):
                index, omitted = data.draw(st.sampled_from(dropped))
                pin = Pin(id_of(messages[index]), omitted.start, omitted.stop)
                await compressor.pin(bytes.fromhex(compressed.conversation), pin)
                wanted.append(messages[index]["content"].split("\n")[pin.start : pin.stop])

    asyncio.run(run())


def test_pinned_parts_of_a_gap() -> None:
    pins = [Pin("7f3a" + "0" * 28, 5, 12), Pin("7f3a" + "0" * 28, 20, 22), Pin("ffff" + "0" * 28, 12, 20)]
    parts = pinned_gaps([gap(10, 30)], pins)
    assert [(part.start, part.stop) for part in parts] == [(10, 12), (20, 22)]
    assert [(rest.start, rest.stop) for rest in without([gap(11, 25)], parts)] == [(12, 20), (22, 25)]
    assert "2 lines of message 3 again, 11-12" in render(parts)


def test_a_pin_that_was_spoilt_is_none() -> None:
    whole = encode_pin(Pin("7f3a" * 8, 1, 2))
    assert decode_pin(whole) == Pin("7f3a" * 8, 1, 2)
    assert decode_pin(whole.replace(b"7f3a", b"\xff\xfe3a")) is None
    assert decode_pin(whole[:-1]) is None
