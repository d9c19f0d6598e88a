"""Conversations against which others are measured."""

from __future__ import annotations

import asyncio

from sluice.compressor import (
    OPENAI_CHAT,
    Compressed,
    MemoryStore,
    Mode,
)
from tests.compressor.conversations import Json, encode, long_read
from tests.compressor.epochs import COLD_S, Clock, make, send


async def test_held_out_conversations_go_through_untouched_to_their_end() -> None:
    store, clock = MemoryStore(), Clock()
    messages: list[Json] = [{"role": "user", "content": "go"}]

    async def held(share: float) -> Compressed:
        return await send(make(store, clock), messages, holdout=share)

    await held(1.0)
    for index in range(4):
        messages += long_read(f"f{index % 2}.py", 40, "t")
        clock.now_s += COLD_S
        # What was decided on the first turn holds, whatever the share is now.
        done = await held(0.0)
        assert done.is_holdout
        assert done.messages == [encode(message) for message in messages]


def test_the_share_that_is_held_out_is_drawn_by_the_first_message() -> None:
    async def run() -> list[Compressed]:
        compressor = make(MemoryStore(), Clock())
        return [
            await compressor.compress(
                [encode({"role": "user", "content": f"task {number}"})],
                dialect=OPENAI_CHAT,
                mode=Mode.BALANCED,
                tenant=b"t",
                upstream="http://up",
                holdout=0.25,
            )
            for number in range(400)
        ]

    drawn = asyncio.run(run())
    assert [one.is_holdout for one in drawn] == [one.is_holdout for one in asyncio.run(run())]
    assert 60 < sum(one.is_holdout for one in drawn) < 140
    assert len({one.conversation for one in drawn}) == 400
