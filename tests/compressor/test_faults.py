"""The compressor under faults: a store that is lost, hangs or was written to by another; a decision that breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from sluice.compressor import (
    OPENAI_CHAT,
    Compressor,
    CompressorSettings,
    MemoryStore,
    Mode,
    StateError,
    ledger,
)
from sluice.compressor import advance as advance_module
from sluice.eval.data import read_traces
from sluice.eval.traces import AGENTS, trace_file
from tests.compressor.conversations import call, encode, file_lines, numbered, result
from tests.compressor.sending import reread, send


class LostStore(MemoryStore):
    """A store that can be made to fail or to hang."""

    lost = False
    hangs = False
    known: Mapping[bytes, bytes]

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        await self._fail()
        return await super().get_many(keys)

    async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        await self._fail()
        return await super().put_new(records)

    async def _fail(self) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.lost:
            raise StateError("gone", known=self.known)


async def test_a_lost_store_without_a_copy_forwards_the_clients_bytes() -> None:
    store = LostStore()
    store.lost, store.known = True, {}
    compressed = await send(Compressor(store), reread())
    assert compressed.messages == [encode(message) for message in reread()]
    assert compressed.bypass == "state"


async def test_a_conversation_that_begins_while_the_store_is_lost_stays_as_it_went_out() -> None:
    class OnlyReadsFail(LostStore):
        async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
            return await MemoryStore.put_new(self, records)

    store = OnlyReadsFail()
    compressor = Compressor(store)
    repeats = {"role": "user", "content": [{"type": "text", "text": "go"}]}
    log = result("c0", "\n".join(["waiting for the server"] * 50))
    store.lost, store.known = True, {}
    first = await send(compressor, [repeats, log])
    assert (first.messages, first.bypass) == ([encode(repeats), encode(log)], "state")
    store.lost = False
    later = await send(compressor, [repeats, log, call("c1", "bash", command="x"), result("c1", log["content"])])
    assert later.messages[:2] == first.messages
    assert later.num_markers == 1


async def test_a_lost_store_with_a_copy_replays_what_is_known_and_leaves_the_rest() -> None:
    store = LostStore()
    compressor = Compressor(store)
    before = await send(compressor, reread())
    store.lost = True
    store.known = {key[2:]: record for key, (_, record) in store._entries.items() if key.startswith(b"r:")}
    longer = [*reread(), call("c3", "Read", file_path="a.py"), result("c3", numbered(file_lines(40)))]
    compressed = await send(compressor, longer)
    assert compressed.messages[:5] == before.messages
    assert compressed.messages[5:] == [encode(message) for message in longer[5:]]
    assert compressed.bypass == "state"


async def test_a_store_that_hangs_is_given_up_on() -> None:
    store = LostStore()
    store.hangs = True
    compressed = await send(Compressor(store, CompressorSettings(state_timeout_s=0.01)), reread())
    assert compressed.bypass == "state"


async def test_a_store_that_fails_on_write_costs_nothing() -> None:
    class ReadOnly(MemoryStore):
        async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
            raise StateError("full")

    compressor = Compressor(ReadOnly())
    first = await send(compressor, reread())
    assert first.num_markers == 1
    assert (await send(compressor, reread())).messages == first.messages


async def test_what_breaks_inside_leaves_the_new_messages_untouched_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    compressor = Compressor(store)
    before = await send(compressor, reread())
    longer = [*reread(), call("c3", "Read", file_path="a.py"), result("c3", numbered(file_lines(40)))]

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(advance_module, "decide", broken)
        compressed = await send(compressor, longer)
    assert compressed.bypass == "error"
    assert compressed.messages == [*before.messages, *(encode(message) for message in longer[5:])]
    again = await send(Compressor(store), longer)
    assert (again.messages, again.bypass) == (compressed.messages, None)


async def test_the_loser_of_a_race_adopts_what_the_winner_wrote() -> None:
    class Raced(MemoryStore):
        winner: Mapping[bytes, bytes] = {}

        async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
            await super().put_new(self.winner)
            return await super().put_new(records)

    store = Raced()
    untouched = Compressor(store, CompressorSettings(min_run_lines=1_000))
    winner = MemoryStore()
    await send(Compressor(winner, CompressorSettings(min_run_lines=1_000)), reread())
    store.winner = {key[2:]: record for key, (_, record) in winner._entries.items() if key.startswith(b"r:")}
    compressed = await send(Compressor(store), reread())
    assert compressed.messages == [encode(message) for message in reread()]
    assert (await send(untouched, reread())).messages == compressed.messages


async def test_a_decision_that_takes_too_long_replays_what_is_known_and_leaves_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, ends = MemoryStore(), threading.Event()
    settings = CompressorSettings(decide_timeout_s=0.05, max_inline_bytes=0)
    patient = Compressor(store)
    before = await send(patient, reread())
    longer = [*reread(), call("c3", "Read", file_path="a.py"), result("c3", numbered(file_lines(40)))]
    decide = advance_module.decide

    def slowly(*arguments: Any) -> Any:
        ends.wait(10)
        return decide(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(advance_module, "decide", slowly)
        compressed = await send(Compressor(store, settings), longer)
    ends.set()
    assert compressed.bypass == "timeout"
    assert compressed.messages == [*before.messages, *(encode(message) for message in longer[5:])]
    again = await send(patient, longer)
    assert (again.messages, again.bypass) == (compressed.messages, None)


def damage(store: MemoryStore) -> int:
    """Make all renditions those of another version; how many there were."""
    num = 0
    for key, (expires_at, data) in list(store._entries.items()):
        if key.startswith(b"r:") and ledger.decode(data) is not None:
            fields = msgspec.msgpack.decode(data)
            store._entries[key] = (expires_at, msgspec.msgpack.encode([ledger.RECORD_VERSION + 1, *fields[1:]]))
            num += 1
    return num


@pytest.mark.parametrize("agent", AGENTS)
async def test_records_that_cannot_be_read_are_decided_anew_and_stay_as_they_were_decided(
    agent: str, caplog: pytest.LogCaptureFixture
) -> None:
    trace = next(iter(read_traces(trace_file(agent))))
    turns = [[trace.messages[index].raw for index in turn.history] for turn in trace.turns()]
    store, num_told = MemoryStore(), 0

    def told() -> None:
        nonlocal num_told
        num_told += 1

    async def forward(compressor: Compressor, messages: list[bytes]) -> list[bytes]:
        compressed = await compressor.compress(
            messages, dialect=OPENAI_CHAT, mode=Mode.BALANCED, tenant=b"t", upstream="http://up"
        )
        assert compressed.bypass is None
        return list(compressed.messages)

    older = Compressor(store, on_unreadable=told)
    middle = len(turns) // 2
    for messages in turns[:middle]:
        before = await forward(older, messages)
    assert (num_told, caplog.records) == (0, [])
    assert damage(store) > 3
    for messages in turns[middle:]:  # each by another process
        after = await forward(Compressor(store, on_unreadable=told), messages)
        assert after[: len(before)] == before
        before = after
    assert num_told > 3
    assert {"cannot be read, and counts as lost" in record.getMessage() for record in caplog.records} == {True}
    assert len(caplog.records) == len(turns) - middle  # once in each
