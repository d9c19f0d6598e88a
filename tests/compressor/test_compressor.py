"""The compressor as its users see it: what goes out, turn after turn, and under faults."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import (
    OPENAI_CHAT,
    AmbiguousRecallError,
    Compressed,
    Compressor,
    CompressorSettings,
    MemoryStore,
    Mode,
    StateError,
    UnknownRecallError,
)
from sluice.compressor import advance as advance_module
from sluice.compressor.lines import split
from tests.compressor.conversations import Json, call, encode, file_lines, numbered, result, turns
from tests.effort import examples

MARKER = re.compile(
    r"^\[sluice ([0-9a-f]{4}): (\d+) lines (?:as in message (\d+)(?:, numbered \d+-\d+)?|omitted, (\d+)-(\d+))\]$"
)


async def send(
    compressor: Compressor, messages: Sequence[Json], *, mode: Mode = Mode.SAFE, tenant: bytes = b"t"
) -> Compressed:
    return await compressor.compress(
        [encode(message) for message in messages], dialect=OPENAI_CHAT, mode=mode, tenant=tenant, upstream="http://up"
    )


def contents(compressed: Compressed) -> list[Any]:
    return [json.loads(raw)["content"] for raw in compressed.messages]


def reread(num_lines: int = 40) -> list[Json]:
    text = numbered(file_lines(num_lines))
    return [
        {"role": "user", "content": "fix it"},
        call("c1", "Read", file_path="a.py"),
        result("c1", text),
        call("c2", "Read", file_path="a.py"),
        result("c2", text),
    ]


async def test_a_second_read_of_the_same_file_is_one_marker() -> None:
    compressed = await send(Compressor(MemoryStore()), reread())
    assert contents(compressed)[2] == numbered(file_lines(40))
    assert re.fullmatch(r"\[sluice [0-9a-f]{4}: 40 lines as in message 3\]", contents(compressed)[4])
    assert compressed.messages[:4] == [encode(message) for message in reread()[:4]]
    assert (compressed.num_markers, compressed.num_lines_omitted, compressed.bypass) == (1, 40, None)
    assert compressed.num_chars_in - compressed.num_chars_out == len(numbered(file_lines(40))) - len(
        contents(compressed)[4]
    )


async def test_after_an_edit_only_what_changed_is_sent_with_its_neighbours() -> None:
    before = file_lines(60)
    after = [*before[:30], "    inserted = True", *before[30:]]
    messages = [
        *reread(60)[:3],
        call("c2", "Edit", file_path="a.py", old_string="x", new_string="y"),
        result("c2", "done"),
        call("c3", "Read", file_path="a.py"),
        result("c3", numbered(after)),
    ]
    lines = contents(await send(Compressor(MemoryStore()), messages))[6].split("\n")
    assert lines[1:6] == numbered(after).split("\n")[28:33]
    assert re.fullmatch(r"\[sluice \w{4}: 28 lines as in message 3\]", lines[0])
    assert re.fullmatch(r"\[sluice \w{4}: 28 lines as in message 3, numbered 34-61\]", lines[6])


async def test_other_results_do_not_lean_on_a_file_that_was_edited_since() -> None:
    lines = file_lines(30)
    messages = [
        *reread(30)[:3],
        call("c2", "Edit", file_path="a.py", old_string="x", new_string="y"),
        result("c2", "done"),
        call("c3", "bash", command="./show-backup"),
        result("c3", "\n".join(lines)),
    ]
    assert contents(await send(Compressor(MemoryStore()), messages))[6] == "\n".join(lines)
    del messages[3:5]
    assert "as in message 3" in contents(await send(Compressor(MemoryStore()), messages))[4]


async def test_a_file_that_the_agent_wrote_need_not_be_read_back() -> None:
    text = "\n".join(file_lines(30))
    patch = (
        "*** Begin Patch\n*** Add File: b.py\n"
        + "".join(f"+{line}\n" for line in file_lines(30, "b"))
        + "*** End Patch"
    )
    messages = [
        {"role": "user", "content": "go"},
        call("c1", "Write", file_path="a.py", content=text),
        result("c1", "ok"),
        call("c2", "bash", command="cat a.py"),
        result("c2", text + "\n"),
        call("c3", "apply_patch", patchText=patch),
        result("c3", "ok"),
        call("c4", "Read", file_path="b.py"),
        result("c4", numbered(file_lines(30, "b"))),
    ]
    sent = contents(await send(Compressor(MemoryStore()), messages))
    assert re.fullmatch(r"\[sluice \w{4}: 30 lines as in message 2\]\n", sent[4])
    assert re.fullmatch(r"\[sluice \w{4}: 30 lines as in message 6, numbered 1-30\]", sent[8])


async def test_the_words_of_people_and_reports_of_edits_are_untouchable() -> None:
    text = "\n".join(file_lines(30))
    messages = [
        *reread(30)[:3],
        {"role": "user", "content": text},
        call("c2", "Edit", file_path="b.py", old_string="x"),
        result("c2", text),
    ]
    assert (await send(Compressor(MemoryStore()), messages)).messages == [encode(message) for message in messages]


async def test_what_is_marked_to_be_kept_is_kept() -> None:
    text = "\n".join([*file_lines(20), "<keepContext>", *file_lines(10, "k"), "</keepContext>"])
    messages = [
        {"role": "user", "content": "go"},
        call("c1", "bash", command="make"),
        result("c1", text),
        call("c2", "bash", command="make"),
        result("c2", text),
        call("c3", "bash", command="make"),
        result("c3", text.replace("keepContext", "b")),
    ]
    sent = contents(await send(Compressor(MemoryStore()), messages))
    kept = "\n".join(["<keepContext>", *file_lines(10, "k"), "</keepContext>"])
    assert sent[4].startswith("[sluice ")
    assert sent[4].endswith("\n" + kept)
    assert len(sent[6]) < len(sent[4])


async def test_text_only_agents() -> None:
    listing = "<returncode>0</returncode>\n<output>\n" + "\n".join(file_lines(30)) + "\n</output>"
    asked = {"role": "assistant", "content": "I look.\n\n```bash\ncat a.py\n```"}
    messages = [{"role": "system", "content": "You are"}, {"role": "user", "content": "fix"}, asked,
                {"role": "user", "content": listing}, asked, {"role": "user", "content": listing}]  # fmt: skip
    sent = contents(await send(Compressor(MemoryStore()), messages))
    assert sent[3] == listing
    assert re.fullmatch(r"\[sluice \w{4}: 33 lines as in message 3\]", sent[5])


async def test_off_gives_back_the_very_bytes() -> None:
    raws = [b'{ "role":"user" , "content":"x"}', b'{"role":"tool","tool_call_id":"c","content":"y"}']
    compressed = await Compressor(MemoryStore()).compress(
        raws, dialect=OPENAI_CHAT, mode=Mode.OFF, tenant=b"t", upstream="u"
    )
    assert compressed.messages == raws


async def test_a_changing_system_prompt_changes_nothing_else() -> None:
    compressor = Compressor(MemoryStore())
    one = await send(compressor, [{"role": "system", "content": "today: Monday"}, *reread()])
    two = await send(
        compressor, [{"role": "system", "content": "today: Tuesday"}, {"role": "system", "content": "x"}, *reread()]
    )
    assert two.messages[2:] == one.messages[1:]
    assert two.num_new == 0


async def test_moved_cache_control_keeps_the_rendition() -> None:
    compressor = Compressor(MemoryStore())
    messages = reread()
    marked = json.loads(json.dumps(messages))
    marked[4]["content"] = [{"type": "text", "text": messages[4]["content"], "cache_control": {"type": "ephemeral"}}]
    first = await send(compressor, marked)
    second = await send(compressor, messages)
    (part,) = json.loads(first.messages[4])["content"]
    assert part.pop("cache_control") == {"type": "ephemeral"}
    assert part["text"] == json.loads(second.messages[4])["content"]
    assert second.num_new == 0


async def test_what_is_malformed_goes_out_as_it_came() -> None:
    raws = [encode(message) for message in reread()] + [b'{"role":"robot","content":1}', b'{"role":"user"}']
    compressed = await Compressor(MemoryStore()).compress(
        raws, dialect=OPENAI_CHAT, mode=Mode.SAFE, tenant=b"t", upstream="u"
    )
    assert compressed.messages[5:] == raws[5:]
    assert compressed.num_markers == 1


async def test_recall_by_the_marker_and_in_full() -> None:
    compressor = Compressor(MemoryStore())
    compressed = await send(compressor, reread())
    (full_id,) = compressed.originals
    shown = MARKER.match(contents(compressed)[4])
    assert shown is not None
    for recall_id in (shown[1], full_id, full_id.upper()):
        assert await compressor.recall(b"t", recall_id) == reread()[4]["content"]
    for recall_id in ("ffff" if shown[1] != "ffff" else "0000", "", "zzzz", "12"):
        with pytest.raises(UnknownRecallError):
            await compressor.recall(b"t", recall_id)
    with pytest.raises(UnknownRecallError):
        await compressor.recall(b"someone else", full_id)


async def test_a_short_id_that_fits_two_originals_names_both() -> None:
    store = MemoryStore()
    ids = ["abcd" + "0" * 28, "abcd" + "1" * 28]
    await store.put_originals(b"t", dict.fromkeys(ids, "text"))
    with pytest.raises(AmbiguousRecallError, match=f"{ids[0]}, {ids[1]}"):
        await Compressor(store).recall(b"t", "abcd")
    assert await Compressor(store).recall(b"t", ids[1]) == "text"


def visible_bodies(raw: bytes) -> list[tuple[str, ...]]:
    """Every text that a forwarded message shows, as lines less their gutters; of patches, the new side too."""
    message = OPENAI_CHAT.parse(raw)
    strings = [text.text for text in message.texts]
    for tool_call in message.calls:
        strings += [value for value in json.loads(tool_call.arguments).values() if isinstance(value, str)]
    return [split(text).bodies for text in strings]


def assert_nothing_is_lost(messages: Sequence[Json], compressed: Compressed) -> None:
    """Kept lines are verbatim and in order; what a marker stands for is shown where it says, in the same request."""
    for message, raw in zip(messages, compressed.messages, strict=True):
        if raw == encode(message):
            continue
        original, forwarded = split(message["content"]), split(json.loads(raw)["content"])
        assert {k: v for k, v in json.loads(raw).items() if k != "content"} == {
            k: v for k, v in message.items() if k != "content"
        }
        index = 0
        for text in forwarded.texts:
            marker = MARKER.match(text)
            if marker is None:
                assert text == original.texts[index]
                index += 1
                continue
            omitted = original.bodies[index : index + int(marker[2])]
            index += int(marker[2])
            if marker[3]:
                shown = visible_bodies(compressed.messages[int(marker[3]) - 1])
                assert any(bodies[i : i + len(omitted)] == omitted for bodies in shown for i in range(len(bodies)))
            else:
                assert (int(marker[4]), int(marker[5])) == (index - len(omitted) + 1, index)
        assert index == len(original)


@examples(150)
@given(turns())
def test_a_conversation_loses_nothing_and_its_prefix_never_slips(messages: list[Json]) -> None:
    async def run() -> None:
        store = MemoryStore()
        compressor, restarted = Compressor(store), Compressor(store)
        forwarded: list[bytes] = []
        for stop in range(1, len(messages) + 1):
            compressed = await send(compressor if stop % 3 else restarted, messages[:stop])
            assert compressed.messages[: len(forwarded)] == forwarded
            assert_nothing_is_lost(messages[:stop], compressed)
            forwarded = compressed.messages
        assert (await send(Compressor(MemoryStore()), messages)).messages == forwarded, (
            "a lost ledger is rebuilt the same"
        )

    asyncio.run(run())


@examples(60)
@given(turns(), turns(), st.data())
def test_branches_and_rewinds_keep_what_they_share(one: list[Json], other: list[Json], data: st.DataObject) -> None:
    async def run() -> None:
        compressor = Compressor(MemoryStore())
        trunk = (await send(compressor, one)).messages
        cut = data.draw(st.integers(1, len(one)))
        branch = await send(compressor, one[:cut] + other)
        assert branch.messages[:cut] == trunk[:cut]
        assert (await send(compressor, one)).messages == trunk
        together = await asyncio.gather(*(send(compressor, one + other) for _ in range(3)))
        assert together[0].messages[: len(one)] == trunk
        assert together[0].messages == together[1].messages == together[2].messages

    asyncio.run(run())


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

    calm = MemoryStore()
    await send(Compressor(calm), reread(), mode=Mode.SAFE)
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
