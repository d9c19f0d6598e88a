"""A network that answers when it pleases: whatever is decided stays decided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT, Compressed, Compressor, CompressorSettings, MemoryStore, Mode
from sluice.compressor.scoring.feature_scorer import load_default
from sluice.compressor.scoring.neural.neural_scorer import NeuralScorer
from tests.compressor.conversations import Json, encode, turns
from tests.compressor.scoring.neural.doubles import Moody, processor
from tests.effort import examples


def make(store: MemoryStore, seed: int) -> Compressor:
    scorer = NeuralScorer(load_default(), processor, Moody(seed), deadline_s=0.002)
    scorer.start()
    scorer._loader.join(20)
    return Compressor(store, CompressorSettings(max_conversation_bytes=20_000), scorer=scorer)


async def send(compressor: Compressor, messages: Sequence[Json]) -> Compressed:
    return await compressor.compress(
        [encode(message) for message in messages],
        dialect=OPENAI_CHAT,
        mode=Mode.AGGRESSIVE,
        tenant=b"t",
        upstream="http://up",
    )


@examples(40)
@given(st.data(), turns(min_size=4, max_size=20), st.integers(0, 1_000_000))
async def test_what_was_forwarded_once_is_forwarded_again(
    data: st.DataObject, messages: list[dict[str, Any]], seed: int
) -> None:
    store = MemoryStore()
    workers = [make(store, seed + number) for number in range(3)]
    forwarded: list[bytes] = []
    num_sent = 0
    while num_sent < len(messages):
        num_sent = data.draw(st.integers(num_sent + 1, len(messages)))
        worker = data.draw(st.sampled_from(workers))
        found = await send(worker, messages[:num_sent])
        assert found.bypass is None
        if found.epoch is None:
            assert found.messages[: len(forwarded)] == forwarded
        # Told again, by the same or by another: the same, byte for byte.
        again = await send(data.draw(st.sampled_from(workers)), messages[:num_sent])
        assert again.messages == found.messages
        forwarded = found.messages
    for raw, message in zip(forwarded, messages, strict=True):
        kept = json.loads(raw)
        assert kept["role"] == message["role"]
