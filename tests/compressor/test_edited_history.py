"""What is replayed where a client changed a message of its history."""

from __future__ import annotations

import asyncio
import zlib

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import (
    OPENAI_CHAT,
    Compressor,
    CompressorSettings,
    MemoryStore,
    Mode,
)
from tests.compressor import sending
from tests.compressor.conversations import Json, call, encode, file_lines, long_read, numbered, read_file, result, turns
from tests.compressor.epochs import COLD_S, Clock, check, make, send
from tests.effort import examples


@examples(60)
@given(turns(min_size=6, max_size=14), st.data())
def test_what_follows_an_edited_message_stays_frozen(messages: list[Json], data: st.DataObject) -> None:
    async def run() -> None:
        store, clock = MemoryStore(), Clock()
        compressor = make(store, clock, exempt=0)
        for stop in range(2, len(messages) + 1, 2):
            clock.now_s += data.draw(st.sampled_from([1.0, COLD_S]))
            before = await send(compressor, messages[:stop])
        # No turn ends on a message of even index: an epoch goes with the message that it began on.
        edited = 2 * data.draw(st.integers(0, stop // 2 - 1))
        changed = [dict(message) for message in messages[:stop]]
        changed[edited] = {**changed[edited], "name": "changed"}
        after = await send(make(store, clock, exempt=0), changed)
        assert after.bypass is None
        # Another process has not reviewed this history, and may find that to rewrite it pays by now.
        assert after.epoch or after.messages[:edited] == before.messages[:edited]
        check(changed, after)
        again = await send(compressor, changed)
        assert again.messages == after.messages

    asyncio.run(run())


async def test_a_message_behind_an_edited_one_is_replayed() -> None:
    store, clock = MemoryStore(), Clock()
    messages: list[Json] = [{"role": "user", "content": "go"}]
    for index in range(4):
        messages += long_read(f"f{index}.py", 40, f"t{index}")
        before = await send(make(store, clock), messages)
    changed = [dict(message) for message in messages]
    changed[2] = result("t0", "edited by the client")
    # Another policy would decide otherwise: what is replayed comes from the ledger.
    bold = Compressor(store, CompressorSettings(), clock=clock)
    after = await bold.compress(
        [encode(message) for message in changed], dialect=OPENAI_CHAT, mode=Mode.SAFE, tenant=b"t", upstream="http://up"
    )
    assert after.messages[2] == encode(changed[2])
    assert after.messages[3:] == before.messages[3:]
    assert after.num_markers > 0


CLEARED = "[Old tool result content cleared]"


async def test_what_stood_above_before_an_edit_is_not_referred_to_after_a_second_one_elsewhere() -> None:
    """As agents do that clear old results step by step."""
    store, clock = MemoryStore(), Clock()
    file = numbered(file_lines(40))
    messages: list[Json] = [
        {"role": "user", "content": "fix it"},
        *(call("c1", "Read", file_path="a.py"), result("c1", file)),
        *(call("c2", "Read", file_path="b.py"), result("c2", numbered(file_lines(40, "b")))),
        *(call("c3", "Read", file_path="a.py"), result("c3", file)),
        *({"role": "assistant", "content": "hm"}, {"role": "user", "content": "go on"}),
    ]
    for stop in range(1, len(messages) + 1, 2):
        sent = await sending.send(make(store, clock), messages[:stop])
    assert sending.contents(sent)[6].endswith("40 lines as in message 3]")
    for cleared, number in ((2, 0), (4, 1)):
        messages[cleared] = {**messages[cleared], "content": CLEARED}
        messages += [{"role": "assistant", "content": f"hm {number}"}, {"role": "user", "content": f"go on {number}"}]
        sent = await sending.send(make(store, clock), messages)
        assert sending.contents(sent)[6] == file
        check(messages, sent)


async def test_what_an_epoch_rewrote_comes_back_without_it_only_where_that_still_holds() -> None:
    store, clock = MemoryStore(), Clock()
    # Lines that the judge wants no longer when it looks at them again, so that the second read refers to nothing.
    lines = [line for line in file_lines(120) if zlib.crc32(line.encode()) % 100 < 60]
    messages = [{"role": "user", "content": "fix it"}, *read_file("c1", "a.py", lines)]
    messages += [*read_file("c2", "a.py", lines), {"role": "user", "content": "go on"}]
    for stop in (1, 3, 5):
        sent = await sending.send(make(store, clock), messages[:stop])
    assert sending.contents(sent)[4].endswith(f"{len(lines)} lines as in message 3]")
    clock.now_s += COLD_S
    rewritten = await send(make(store, clock, exempt=0), messages)
    assert rewritten.epoch == "cold"
    assert not rewritten.renditions[4].references
    messages[2] = {**messages[2], "content": CLEARED}
    assert (await send(make(store, clock, exempt=0), messages)).messages[4] == rewritten.messages[4]
    check(messages[:5], await send(make(store, clock, exempt=0), messages[:5]))


async def test_a_process_does_not_go_on_from_before_an_epoch_that_stands_behind_an_edited_message() -> None:
    """It would show what that epoch no longer forwards."""
    store, clock = MemoryStore(), Clock()
    compressor = make(store, clock, exempt=0)
    messages = [{"role": "user", "content": "fix it"}, *read_file("c1", "a.py", file_lines(60))]
    for stop in (1, 3):
        await sending.send(compressor, messages[:stop])
    messages += read_file("c2", "b.py", file_lines(40, "b"))
    messages += [{"role": "assistant", "content": "hm"}, {"role": "user", "content": "go on"}]
    clock.now_s += COLD_S
    rewritten = await send(compressor, messages)
    assert rewritten.epoch == "cold"
    messages[4] = result("c2", numbered(file_lines(60)))
    after = await sending.send(compressor, messages)
    assert after.messages[:4] == rewritten.messages[:4]
    check(messages, after)


@examples(60)
@given(turns(min_size=6, max_size=14), st.data())
def test_what_is_referred_to_is_there_however_often_results_are_cleared(
    messages: list[Json], data: st.DataObject
) -> None:
    async def run() -> None:
        store, clock = MemoryStore(), Clock()
        messages_now = [dict(message) for message in messages]
        stop = 2
        while stop < len(messages):
            stop = min(len(messages), stop + data.draw(st.integers(1, 4)))
            clock.now_s += data.draw(st.sampled_from([1.0, COLD_S]))
            results = [at for at in range(stop) if messages_now[at]["role"] == "tool"]
            if results and data.draw(st.booleans()):
                at = data.draw(st.sampled_from(results))
                messages_now[at] = {**messages_now[at], "content": CLEARED}
            sent = await send(make(store, clock, exempt=0), messages_now[:stop])
            assert sent.bypass is None
            check(messages_now[:stop], sent, before=messages)
            assert (await send(make(store, clock, exempt=0), messages_now[:stop])).messages == sent.messages

    asyncio.run(run())
