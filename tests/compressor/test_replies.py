"""What a model said in one go is one message, in however many a client sends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import ANTHROPIC_MESSAGES, OPENAI_RESPONSES, Compressed, Compressor, MemoryStore, Mode
from sluice.compressor.replies import joined, runs
from tests.compressor.conversations import Json, encode, turns
from tests.compressor.in_dialects import READ_TWICE, SPOKEN, without_cache_control
from tests.effort import examples


class CountingStore(MemoryStore):
    """Counts how often it is asked."""

    num_look_ups = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.num_look_ups += 1
        return await super().get_many(keys)


async def send(compressor: Compressor, messages: Sequence[Json], mode: Mode = Mode.SAFE) -> Compressed:
    raws = [encode(message) for message in messages]
    return await compressor.compress(raws, dialect=ANTHROPIC_MESSAGES, mode=mode, tenant=b"t", upstream="http://up")


def test_assistant_messages_in_a_row_are_one() -> None:
    found = runs(["assistant", "assistant", "user", "tool", "tool", "assistant", "user", "assistant", "assistant"])
    assert [(run.start, run.stop) for run in found] == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 9)]
    assert runs([]) == []


def test_a_reply_is_the_same_however_it_is_cut() -> None:
    blocks: list[Json] = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "t1", "name": "Read", "input": {"file_path": "a.py"}},
    ]
    whole = ANTHROPIC_MESSAGES.parse(encode({"role": "assistant", "content": blocks}))
    for cut in range(1, len(blocks)):
        pieces = [{"role": "assistant", "content": part} for part in (blocks[:cut], blocks[cut:])]
        assert joined([ANTHROPIC_MESSAGES.parse(encode(piece)) for piece in pieces]) == whole
    text = ANTHROPIC_MESSAGES.parse(encode({"role": "assistant", "content": "so"}))
    assert text.identity == ANTHROPIC_MESSAGES.parse(encode({"role": "assistant", "content": [blocks[1]]})).identity
    assert text.identity != whole.identity


@pytest.mark.parametrize("name", SPOKEN)
async def test_a_turn_asks_the_store_once_unless_the_client_changed_something(name: str) -> None:
    store, spoken = CountingStore(), SPOKEN[name]
    compressor = Compressor(store)

    async def look_ups(chat: Sequence[Json]) -> int:
        before = store.num_look_ups
        raws = [encode(message) for message in spoken.say(chat)]
        await compressor.compress(raws, dialect=spoken.dialect, mode=Mode.SAFE, tenant=b"t", upstream="u")
        return store.num_look_ups - before

    last = READ_TWICE[3:]
    longer = [*READ_TWICE, *json.loads(json.dumps(last).replace("c2", "c3"))]
    assert [await look_ups(chat) for chat in (READ_TWICE[:3], READ_TWICE, longer)] == [1, 1, 1]
    edited = json.loads(json.dumps(longer))
    edited[2]["content"] = "gone"
    assert await look_ups([*edited, *json.loads(json.dumps(last).replace("c2", "c4"))]) == 3


async def test_a_codex_turn_is_decided_as_one_reply() -> None:
    items = SPOKEN["responses"].say(READ_TWICE)
    compressed = await Compressor(MemoryStore()).compress(
        [encode(item) for item in items], dialect=OPENAI_RESPONSES, mode=Mode.SAFE, tenant=b"t", upstream="u"
    )
    assert [json.loads(raw).get("type") for raw in compressed.messages] == [item.get("type") for item in items]
    assert compressed.num_new == len(items)


def spread(messages: Sequence[Json], cuts: Sequence[bool]) -> list[Json]:
    """The same messages, replies of several blocks in one message or in one each."""
    found: list[Json] = []
    for message, cut in zip(messages, cuts, strict=True):
        if cut and message["role"] == "assistant" and isinstance(message["content"], list):
            found += [{**message, "content": [block]} for block in message["content"]]
        else:
            found.append(message)
    return found


def prompt_of(messages: Sequence[bytes]) -> list[Any]:
    """What a provider reads, keys in their order: messages of a role in a row are one, breakpoints are none of it."""
    seen: list[Any] = []
    for raw in messages:
        message = without_cache_control(json.loads(raw))
        content = message["content"]
        given = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks = [json.dumps(block) for block in given]
        if seen and seen[-1]["role"] == message["role"]:
            seen[-1]["content"] += blocks
        else:
            seen.append({"role": message["role"], "content": blocks})
    return seen


def read_by(later: list[Any], earlier: list[Any]) -> bool:
    """Whether a provider's cache of an earlier prompt serves a later one to its end."""
    if len(later) < len(earlier):
        return False
    head, last = earlier[:-1], earlier[-1]
    now = later[len(head)]
    return later[: len(head)] == head and now["content"][: len(last["content"])] == last["content"]


@pytest.mark.parametrize("mode", [Mode.SAFE, Mode.BALANCED])
@examples(25)
@given(chat=turns(max_size=8), data=st.data())
def test_replies_that_a_client_puts_together_later_or_cuts_up_move_nothing(
    mode: Mode, chat: list[Json], data: st.DataObject
) -> None:
    """Claude Code merges assistant messages that share an id: from turn to turn, replies come whole or in blocks."""

    async def run() -> None:
        compressor = Compressor(MemoryStore())
        before: list[Any] = []
        cuts = [data.draw(st.booleans()) for _ in chat]
        for end in (index for index, message in enumerate(chat, 1) if message["role"] != "assistant"):
            for index in data.draw(st.sets(st.integers(0, end - 1), max_size=3)):
                cuts[index] = not cuts[index]
            messages = spread(SPOKEN["messages"].say(chat[:end]), cuts[:end])
            compressed = await send(compressor, messages, mode)
            assert compressed.bypass is None
            assert len(compressed.messages) == len(messages)
            now = prompt_of(compressed.messages)
            if compressed.epoch is None:
                assert read_by(now, before) if before else True
            before = now

    asyncio.run(run())
