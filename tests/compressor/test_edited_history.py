"""What is replayed where a client changed a message of its history."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import (
    OPENAI_CHAT,
    Compressor,
    CompressorSettings,
    MemoryStore,
    Mode,
)
from tests.compressor.conversations import Json, encode, long_read, result, turns
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
