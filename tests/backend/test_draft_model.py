from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sluice.backend.base import SamplingParams
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.loading import load_engine
from sluice.backend.errors import ModelUnavailableError
from tests.backend.conftest import write_tiny_model

PROMPTS = [[7, 30, 200, 41], [20, 21, 90], [40, 66, 3, 9, 120, 77]]
SETTINGS = [
    SamplingParams(temperature=0, max_tokens=40),
    SamplingParams(seed=3, max_tokens=40),
    SamplingParams(seed=3, max_tokens=40, top_p=0.5, presence_penalty=1.0),
]


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that agrees now and then: the same weights, blurred."""
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "other")
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        tensors[name] = tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, folder / "model.safetensors")
    return folder


async def outputs(engine: EmbeddedEngine, params: SamplingParams) -> list[list[int]]:
    async def one(prompt: list[int]) -> list[int]:
        return [token async for output in engine.generate(prompt, params) for token in output.token_ids]

    return await asyncio.gather(*(one(prompt) for prompt in PROMPTS))


def drafting(folder: Path, draft_model: Path) -> EmbeddedEngine:
    return load_engine(folder, EngineConfig(draft_model=draft_model, max_num_drafting_tokens=512), frozenset())


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_draft_model_changes_the_speed_and_not_the_output(
    tiny_folder: Path, other_folder: Path, is_same: bool
) -> None:
    plain = load_engine(tiny_folder, EngineConfig(max_num_draft_tokens=0), frozenset())
    drafted = drafting(tiny_folder, tiny_folder if is_same else other_folder)
    for params in SETTINGS:
        assert await outputs(plain, params) == await outputs(drafted, params)
    stats = drafted.stats()
    assert stats.draft_tokens_total > 0
    if is_same:  # the same numbers drawn from the same distribution
        assert stats.accepted_tokens_total > 0.9 * stats.draft_tokens_total
        assert stats.steps_total < 0.5 * plain.stats().steps_total
    assert drafted._worker._drafting._draft_model is not None
    blocks = drafted._worker._drafting._draft_model.blocks
    assert blocks.num_available == blocks.num_blocks
    await plain.aclose()
    await drafted.aclose()


async def test_drawn_tokens_follow_the_large_models_distribution(tiny_folder: Path, other_folder: Path) -> None:
    prompt, num_draws = [9, 30, 31], 600
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)

    def two_likeliest(tokens: list[int]) -> dict[int, float]:
        with torch.inference_mode():
            values, indexes = model(torch.tensor([tokens])).logits[0, -1].topk(2)
        return dict(zip(indexes.tolist(), torch.softmax(values, 0).tolist(), strict=True))

    expected = {
        (first, second): p * q
        for first, p in two_likeliest(prompt).items()
        for second, q in two_likeliest([*prompt, first]).items()
    }
    engine = drafting(tiny_folder, other_folder)

    async def draw(seed: int) -> tuple[int, ...]:
        params = SamplingParams(seed=seed, max_tokens=3, top_k=2)
        tokens = [token async for output in engine.generate(prompt, params) for token in output.token_ids]
        return tuple(tokens[:2])

    counts: Counter[tuple[int, ...]] = Counter()
    for start in range(0, num_draws, 8):
        counts.update(await asyncio.gather(*(draw(seed) for seed in range(start, start + 8))))
    assert engine.stats().accepted_tokens_total > 0
    assert set(counts) <= set(expected)
    for pair, share in expected.items():
        assert counts[pair] / num_draws == pytest.approx(share, abs=0.07)
    await engine.aclose()


def test_another_vocabulary_is_refused_with_both_sizes(tiny_folder: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 99}))
    with pytest.raises(ModelUnavailableError, match=r"99 tokens.*258"):
        drafting(tiny_folder, tmp_path)


async def test_a_sequence_beyond_its_window_is_not_drafted_for(tiny_folder: Path, tmp_path: Path) -> None:
    engine = drafting(tiny_folder, write_tiny_model(tmp_path / "short", window=32))
    params = SamplingParams(temperature=0, max_tokens=60)
    assert [len(tokens) for tokens in await outputs(engine, params)] == [60] * 3
    await engine.aclose()
