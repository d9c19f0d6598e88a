"""Modes that drop more than repeats: epochs, their price, what they keep, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import (
    ANTHROPIC_MESSAGES,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    Compressor,
    CompressorSettings,
    MemoryStore,
    Mode,
)
from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.ledger import decode
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.profiles import PROFILES
from sluice.compressor.scoring import Moment
from sluice.compressor.settings import Prices
from tests.compressor.conversations import Json, call, encode, file_lines, long_read, numbered, result, turns
from tests.compressor.epochs import COLD_S, Clock, CoinScorer, check, make, send
from tests.effort import examples


@examples(150)
@given(turns(max_size=16), st.data())
def test_only_a_declared_epoch_moves_a_prefix(messages: list[Json], data: st.DataObject) -> None:
    async def run() -> None:
        store, clock = MemoryStore(), Clock()
        workers = [make(store, clock), make(store, clock)]
        forwarded: list[bytes] = []
        stop = 0
        while stop < len(messages):
            stop = min(len(messages), stop + data.draw(st.integers(1, 4)))
            clock.now_s += data.draw(st.sampled_from([1.0, 1.0, COLD_S]))
            worker = data.draw(st.integers(0, 2))
            compressor = workers[worker] if worker < 2 else make(store, clock)
            compressed = await send(compressor, messages[:stop])
            assert compressed.bypass is None
            if compressed.epoch is None:
                assert compressed.messages[: len(forwarded)] == forwarded
            check(messages[:stop], compressed)
            forwarded = compressed.messages
            again = await send(workers[0], messages[:stop])
            assert again.messages == forwarded

    asyncio.run(run())


@examples(100)
@given(turns(min_size=8, max_size=20), st.sampled_from(sorted(PROFILES)), st.data())
def test_no_conversation_ends_up_dearer_than_untouched(messages: list[Json], name: str, data: st.DataObject) -> None:
    """Billed by the provider's own rule: the longest run of messages that were forwarded identically is read."""

    async def run() -> None:
        profile, clock = PROFILES[name], Clock()
        compressor = make(MemoryStore(), clock, profile=profile, exempt=0)
        costs = [0.0, 0.0]
        before: list[list[bytes]] = [[], []]
        for stop in range(1, len(messages) + 1):
            is_cold = data.draw(st.integers(0, 5)) == 0
            clock.now_s += profile.ttl_s + 1 if is_cold else 1.0
            compressed = await send(compressor, messages[:stop])
            for side, sent in enumerate(([encode(message) for message in messages[:stop]], compressed.messages)):
                num_same = 0
                while not is_cold and num_same < len(before[side]) and before[side][num_same] == sent[num_same]:
                    num_same += 1
                sizes = [OPENAI_CHAT.parse(raw).num_chars / 4 + 4 for raw in sent]
                costs[side] += profile.read * sum(sizes[:num_same]) + profile.write * sum(sizes[num_same:])
                before[side] = list(sent)
        assert costs[1] <= costs[0] * 1.01

    asyncio.run(run())


async def test_a_cold_turn_drops_what_is_dead_and_the_newest_results_stay() -> None:
    clock = Clock()
    compressor = make(MemoryStore(), clock)
    messages: list[Json] = [{"role": "user", "content": "go"}]
    for index in range(5):
        messages += long_read(f"f{index}.py", 60, f"t{index}")
        before = await send(compressor, messages)
    clock.now_s += COLD_S
    messages.append({"role": "user", "content": "next task"})
    compressed = await send(compressor, messages)
    assert compressed.epoch == "cold"
    assert compressed.num_chars_out < before.num_chars_out
    results = [index for index, message in enumerate(messages) if message["role"] == "tool"]
    assert [compressed.messages[index] for index in results[-2:]] == [before.messages[index] for index in results[-2:]]
    assert all(len(compressed.messages[i]) < len(before.messages[i]) for i in results[:-2])


async def test_a_changed_model_or_tool_list_is_a_cold_turn() -> None:
    compressor = make(MemoryStore(), Clock(), exempt=0)
    messages = [{"role": "user", "content": "go"}, *long_read("f.py", 200, "t")]
    raws = [encode(message) for message in [*messages, {"role": "user", "content": "on"}]]

    async def epoch(stop: int, context: bytes) -> str | None:
        done = await compressor.compress(
            raws[:stop], dialect=OPENAI_CHAT, mode=Mode.BALANCED, tenant=b"t", upstream="u", context=context
        )
        return done.epoch

    assert await epoch(3, b"model-a") is None
    assert await epoch(4, b"model-b") == "cold"


async def test_dropped_lines_come_back_where_an_edit_quotes_them() -> None:
    clock = Clock()
    store = MemoryStore()
    compressor = make(store, clock, exempt=0)
    messages: list[Json] = [{"role": "user", "content": "go"}, *long_read("src/f.py", 120, "t")]
    await send(compressor, messages)
    clock.now_s += COLD_S
    messages.append({"role": "user", "content": "next"})
    compressed = await send(compressor, messages)
    kept = set(json.loads(compressed.messages[2])["content"].split("\n"))
    dropped = [line for line in file_lines(120, "t") if not any(line in text for text in kept)]
    messages += [
        call("e", "Edit", file_path="src/f.py", old_string=dropped[0], new_string="pass"),
        result("e", "edited"),
    ]
    compressed = await send(compressor, messages)
    answer = json.loads(compressed.messages[-1])["content"]
    assert answer.startswith("edited\n[sluice ")
    assert dropped[0] in answer
    assert check(messages, compressed) == 1
    messages += [call("e2", "Edit", file_path="src/f.py", old_string=dropped[0], new_string="x"), result("e2", "ok")]
    again = await send(make(store, clock, exempt=0), messages)
    assert again.messages[: len(compressed.messages)] == compressed.messages
    assert check(messages, again) == 1, "what was given back once is not given back again"


async def test_every_turn_writes_down_what_the_next_one_has_to_know() -> None:
    store, clock = MemoryStore(), Clock()
    compressor = make(store, clock)
    messages: list[Json] = [{"role": "user", "content": "go"}, *long_read("f.py", 60, "t"), *long_read("f.py", 60, "t")]
    await send(compressor, messages[:3])
    clock.now_s += 10
    await send(compressor, messages)
    records = [decode(record) for key, (_, record) in store._entries.items() if key.startswith(b"r:")]
    kept = [record.turn for record in records if record is not None and record.turn is not None]
    assert [(turn.num_turns, turn.at_s) for turn in kept] == [(1, 1e6), (2, 1e6 + 10)]
    assert kept[1].banked > kept[0].banked >= 0


async def test_a_request_is_priced_by_its_own_upstreams_cache() -> None:
    clock = Clock()
    compressor = make(MemoryStore(), clock)
    messages: list[Json] = [{"role": "user", "content": "go"}]
    epochs = []
    for index in range(6):
        messages += long_read(f"f{index}.py", 60, f"t{index}")
        clock.now_s += COLD_S
        done = await compressor.compress(
            [encode(message) for message in messages],
            dialect=OPENAI_CHAT,
            mode=Mode.BALANCED,
            tenant=b"t",
            upstream="http://up",
            profile=PROFILES["anthropic-1h"],
        )
        epochs.append(done.epoch)
    assert "cold" not in epochs


async def test_a_history_is_looked_through_again_when_it_has_grown_after_a_rewrite_too() -> None:
    """Else each turn after a rewrite would judge all of it anew."""
    looks: list[int] = []

    class Watched(CoinScorer):
        def score(
            self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment
        ) -> list[Sequence[float]]:
            if moment is Moment.EPOCH:
                looks.append(len(messages))
            return super().score(evidence, segments, moment)

    limits = CompressorSettings(num_exempt_results=2, rewrite_margin=1.0)
    judge = LineJudge(Watched(), Prices(arrival=0.01, epoch=0.01), limits)
    compressor = Compressor(MemoryStore(), limits, judges={Mode.BALANCED: judge})
    messages: list[Json] = [{"role": "user", "content": "go"}]
    epochs = []
    for index in range(60):
        messages += long_read(f"f{index}.py", 20, f"t{index}")
        if (await send(compressor, messages)).epoch:
            epochs.append(len(messages))
    assert len(epochs) > 2
    assert set(epochs) <= set(looks)
    assert all(later - earlier > 4 for earlier, later in pairwise(looks))


class Even:
    """Gives every line the same loss."""

    def __init__(self, loss: float) -> None:
        self._loss = loss

    def for_turn(self) -> Even:
        return self

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        return [[self._loss] * len(segment.lines) for segment in segments]


async def test_a_rewrite_after_which_everything_reads_as_before_is_none() -> None:
    """Beside a result that is judged, the report of an edit, which never is, seems to be dead."""
    clock = Clock()
    limits = CompressorSettings(num_exempt_results=0, rewrite_margin=1.0)
    judge = LineJudge(Even(1.0), Prices(arrival=0.01, epoch=0.01), limits)
    compressor = Compressor(MemoryStore(), limits, clock=clock, judges={Mode.BALANCED: judge})
    uses = [
        {"type": "tool_use", "id": "r", "name": "Read", "input": {"file_path": "a.py"}},
        {"type": "tool_use", "id": "e", "name": "Edit", "input": {"file_path": "b.py"}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "r", "content": numbered(file_lines(60, "r"))},
        {"type": "tool_result", "tool_use_id": "e", "content": "\n".join(file_lines(60, "e"))},
    ]
    messages: list[Json] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": uses},
        {"role": "user", "content": results},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "go on"},
    ]
    for stop in (3, 5):
        raws = [encode(message) for message in messages[:stop]]
        done = await compressor.compress(
            raws, dialect=ANTHROPIC_MESSAGES, mode=Mode.BALANCED, tenant=b"t", upstream="http://up"
        )
        assert done.messages == raws
        assert done.epoch is None
        clock.now_s += COLD_S


class ByWordScorer:
    """Wants no line that says `gone`, and none that says `junk` once it is old."""

    def for_turn(self) -> ByWordScorer:
        return self

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        unwanted = ("gone",) if moment is Moment.ARRIVAL else ("gone", "junk")
        return [
            [float(not any(word in text for word in unwanted)) for text in segment.lines.texts] for segment in segments
        ]


async def test_what_was_not_scored_is_not_counted_as_dead() -> None:
    """A long result and a short one in one message: a rewrite that sheds a few lines of the short one does not pay."""

    def steps(tag: str, count: int) -> str:
        return "\n".join(f"{tag} {number} gives {number * 7}" for number in range(count))

    def runs(**results: str) -> list[Json]:
        calls = [
            {"type": "tool_use", "id": tag, "name": "bash", "input": {"command": f"make {tag}"}} for tag in results
        ]
        got = [{"type": "tool_result", "tool_use_id": tag, "content": text} for tag, text in results.items()]
        return [{"role": "assistant", "content": calls}, {"role": "user", "content": got}]

    limits, clock = CompressorSettings(max_scored_lines=1_000), Clock()
    judge = LineJudge(ByWordScorer(), limits.balanced, limits)
    compressor = Compressor(MemoryStore(), limits, clock=clock, judges={Mode.BALANCED: judge})
    messages: list[Json] = [{"role": "user", "content": "fix it"}, *runs(saves=steps("gone", 900))]
    messages += runs(long=steps("big", 2_000), short=f"{steps('junk', 12)}\n{steps('last', 20)}")
    for number in range(24):
        messages += runs(**{f"s{number}": steps(f"s{number}", 30)})
    for stop in range(1, len(messages) + 1, 2):
        clock.now_s += 10.0
        compressed = await compressor.compress(
            [encode(message) for message in messages[:stop]],
            dialect=ANTHROPIC_MESSAGES,
            mode=Mode.BALANCED,
            tenant=b"t",
            upstream="u",
        )
        assert compressed.epoch is None


async def test_how_a_script_ended_stays_though_nothing_is_worth_its_tokens() -> None:
    limits = CompressorSettings()
    judge = LineJudge(Even(0.0), Prices(arrival=0.01, epoch=0.01), limits)
    compressor = Compressor(MemoryStore(), limits, judges={Mode.BALANCED: judge})
    head = "Script running with cell ID 7\nWall time 10.0 seconds\nOutput:\n"
    parts = [{"type": "input_text", "text": text} for text in (head, numbered(file_lines(60, "r")))]
    items: list[Json] = [
        {"type": "message", "role": "user", "content": "go"},
        {"type": "custom_tool_call", "call_id": "c", "name": "exec", "input": "text(1)"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": parts},
    ]
    raws = [encode(item) for item in items]
    done = await compressor.compress(
        raws, dialect=OPENAI_RESPONSES, mode=Mode.BALANCED, tenant=b"t", upstream="http://up"
    )
    said, shown = json.loads(done.messages[2])["output"]
    assert said["text"] == head
    assert len(shown["text"]) < 100
