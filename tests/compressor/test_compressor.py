"""The compressor as its users see it: what goes out, turn after turn."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import (
    OPENAI_CHAT,
    AmbiguousRecallError,
    Compressed,
    Compressor,
    MemoryStore,
    Mode,
    UnknownRecallError,
)
from sluice.compressor.lines import split
from tests.compressor.conversations import Json, call, encode, file_lines, numbered, result, turns
from tests.compressor.sending import contents, reread, send
from tests.effort import examples

MARKER = re.compile(
    r"^\[sluice ([0-9a-f]{4}): (\d+) lines (?:as in message (\d+)(?:, numbered \d+-\d+)?|omitted, (\d+)-(\d+))\]$"
)


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
