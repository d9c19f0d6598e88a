"""What holds in every dialect: whole conversations, turn after turn."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import Compressed, Compressor, Dialect, MemoryStore, Mode
from tests.compressor.conversations import Json, encode, file_lines, numbered, turns
from tests.compressor.in_dialects import READ_TWICE, SPOKEN, Spoken, prompt_of
from tests.effort import examples


async def send(compressor: Compressor, spoken: Spoken, chat: list[Json], mode: Mode = Mode.SAFE) -> Compressed:
    raws = [encode(message) for message in spoken.say(chat)]
    return await compressor.compress(raws, dialect=spoken.dialect, mode=mode, tenant=b"t", upstream="http://up")


def results_of(messages: list[bytes], dialect: Dialect) -> list[str]:
    return [text.text for raw in messages for text in dialect.parse(raw).texts if text.is_result]


@pytest.mark.parametrize("name", SPOKEN)
async def test_a_second_read_is_one_marker(name: str) -> None:
    spoken = SPOKEN[name]
    compressed = await send(Compressor(MemoryStore()), spoken, READ_TWICE)
    first, second = results_of(compressed.messages, spoken.dialect)
    assert first == numbered(file_lines(40))
    assert "40 lines as in message" in second
    assert len(second.split("\n")) == 1


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("mode", [Mode.SAFE, Mode.BALANCED])
@examples(12)
@given(chat=turns(), data=st.data())
def test_what_is_forwarded_is_valid_verbatim_and_grows_at_its_end(
    name: str, mode: Mode, chat: list[Json], data: st.DataObject
) -> None:
    spoken, compressor = SPOKEN[name], Compressor(MemoryStore())
    ends = [index for index, message in enumerate(chat, 1) if message["role"] != "assistant"]
    before: list[bytes] = []
    for end in ends:
        if end != ends[-1] and data.draw(st.booleans()):
            continue
        sent = [encode(message) for message in spoken.say(chat[:end])]
        compressed = asyncio.run(send(compressor, spoken, chat[:end], mode))
        assert compressed.bypass is None
        original = {line for text in results_of(sent, spoken.dialect) for line in text.split("\n")}
        for raw, forwarded in zip(sent, compressed.messages, strict=True):
            was, now = spoken.dialect.parse(raw), spoken.dialect.parse(forwarded)
            assert (now.role, now.calls) == (was.role, was.calls)
            assert [(text.call_id, text.is_result) for text in now.texts] == [
                (text.call_id, text.is_result) for text in was.texts
            ]
            if not any(text.is_result for text in was.texts) or now.texts == was.texts:
                assert forwarded == raw
            for text in now.texts:
                if text.is_result:
                    kept = [line for line in text.text.split("\n") if not line.startswith("[sluice ")]
                    assert original.issuperset(kept)
        now = prompt_of(compressed.messages, spoken.dialect)
        if compressed.epoch is None:
            assert now[: len(before)] == before
        before = now
