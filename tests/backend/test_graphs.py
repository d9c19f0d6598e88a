from __future__ import annotations

from array import array
from pathlib import Path

import pytest
import torch

from sluice.backend.base import SamplingParams
from sluice.backend.embedded.attention import Span
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.load import WeightForm, load_weights
from sluice.backend.embedded.model import Decoder
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.sequence import Sequence

pytest.importorskip("triton")

from sluice.backend.embedded.attention.paged import PagedAttention
from sluice.backend.embedded.graphs import DecodeGraphs, batch_sizes
from sluice.backend.embedded.ops.fused import FusedOps

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_batch_sizes_lie_close() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(3) == [1, 2, 3]
    assert batch_sizes(20) == [1, 2, 4, 8, 16, 20]
    assert batch_sizes(64)[-1] == 64


@torch.inference_mode()
def test_a_batch_that_is_filled_up_is_computed_as_one_that_is_not(tiny_folder: Path) -> None:
    config = ModelConfig.read(tiny_folder)
    cache = KVCache(config, 40, 16, DEVICE)
    weights = load_weights(tiny_folder, config, WeightForm(torch.float32, DEVICE))
    decoder = Decoder(config, weights, cache, FusedOps(config, cache))
    attention = PagedAttention(cache, num_processors=8)
    record = None if DEVICE.type == "cuda" else (lambda forward: forward)
    graphs = DecodeGraphs(decoder, cache, attention, max_num_sequences=4, record=record)
    prompts = [[5, 6, 7] * 11, [9], list(range(20, 60))]
    free, sequences = list(range(40)), []
    for prompt in prompts:
        sequence = Sequence(len(sequences), prompt, SamplingParams())
        sequence.block_table = array("i", [free.pop(7) for _ in range(3)])
        sequences.append(sequence)
    for _ in range(3):
        for wanted in (sequences, sequences[:1]):
            expected = []
            for sequence in wanted:
                positions = torch.arange(len(sequence.tokens), device=DEVICE)
                table = torch.tensor(sequence.block_table, device=DEVICE)
                slots = table[positions // 16] * 16 + positions % 16
                attend = attention.begin([Span(0, len(positions), len(positions), sequence.block_table)])
                ids = torch.tensor(sequence.tokens, device=DEVICE)
                expected.append(decoder.forward(ids, positions, slots, attend, positions[-1:]))
                sequence.num_computed_tokens = len(sequence.tokens) - 1
            actual = graphs.run(wanted)
            assert actual is not None
            torch.testing.assert_close(actual, torch.cat(expected), atol=1e-4, rtol=1e-4)
        for sequence in sequences:
            sequence.tokens.append(50 + sequence.sequence_id)


def test_more_sequences_than_were_recorded_for_are_left_to_the_caller(tiny_folder: Path) -> None:
    config = ModelConfig.read(tiny_folder)
    cache = KVCache(config, 8, 16, DEVICE)
    decoder = Decoder(config, load_weights(tiny_folder, config, WeightForm(torch.float32, DEVICE)), cache)
    record = None if DEVICE.type == "cuda" else (lambda forward: forward)
    attention = PagedAttention(cache, num_processors=8)
    graphs = DecodeGraphs(decoder, cache, attention, max_num_sequences=1, record=record)
    assert graphs.run([Sequence(number, [5], SamplingParams()) for number in range(2)]) is None
