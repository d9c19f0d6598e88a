"""What the engine says is what the model says: with chunks, preemption and speculation as without."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from pathlib import Path

import pytest

from sluice.backend.base import SamplingParams
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import load_engine
from tests.backend.engines import ALL, GREEDY, STRAINS, check_greedy, collect, make, num_held_blocks


def mixed_prompts() -> list[list[int]]:
    """50 of mixed lengths; some share their beginning, some repeat themselves."""
    rng = random.Random(1)
    shared = [rng.randrange(2, 258) for _ in range(40)]
    prompts = [[rng.randrange(2, 258) for _ in range(rng.randrange(1, 120))] for _ in range(38)]
    prompts += [shared + [rng.randrange(2, 258) for _ in range(5)] for _ in range(8)]
    return prompts + [[rng.randrange(2, 258) for _ in range(10)] * 5 for _ in range(4)]


@pytest.mark.parametrize("strain", STRAINS)
async def test_greedy_output_is_that_of_transformers(tiny_folder: Path, strain: str) -> None:
    prompts = mixed_prompts()
    engine = make(tiny_folder, STRAINS[strain])
    params = SamplingParams(temperature=0, max_tokens=40)
    first = await asyncio.gather(*(collect(engine, prompt, params, drafts=[prompt]) for prompt in prompts))
    again = await asyncio.gather(*(collect(engine, prompt, params) for prompt in prompts[-12:]))
    assert num_held_blocks(engine) == 0
    stats = engine.stats()
    assert (stats.preemptions_total > 0) == ("preempted" in strain)
    assert (stats.accepted_tokens_total > 0) == ("speculating" in strain)
    assert stats.cached_tokens_total > 0
    await engine.aclose()
    outputs = [tokens for tokens, _ in (*first, *again)]
    assert all(len(tokens) == 40 for tokens in outputs)
    num_close = check_greedy(tiny_folder, prompts + prompts[-12:], outputs)
    print(f"{strain}: {num_close} of {40 * len(outputs)} tokens were as good as even")


@pytest.mark.parametrize("strain", [strain for strain in STRAINS if "preempted" not in strain])
async def test_greedy_output_of_single_requests_is_that_of_transformers(tiny_folder: Path, strain: str) -> None:
    prompts = mixed_prompts()
    engine = make(tiny_folder, STRAINS[strain])
    params = SamplingParams(temperature=0, max_tokens=16)
    outputs = [(await collect(engine, prompt, params, drafts=[prompt]))[0] for prompt in prompts]
    assert engine.stats().cached_tokens_total > 0
    await engine.aclose()
    num_close = check_greedy(tiny_folder, prompts, outputs)
    print(f"{strain}: {num_close} of {16 * len(outputs)} tokens were as good as even")


@pytest.mark.engine
async def test_greedy_smollm2_is_that_of_transformers(default_folder: Path) -> None:
    rng = random.Random(2)
    words = [rng.randrange(20, 40000) for _ in range(300)]
    prompts = [[rng.choice(words) for _ in range(rng.randrange(2, 90))] for _ in range(30)]
    prompts += [words[:200] + [rng.choice(words) for _ in range(4)] for _ in range(10)]
    prompts += [words[n : n + 12] * 4 for n in range(0, 120, 12)]
    config = EngineConfig(
        kv_memory_bytes=9000 * 46080, max_num_batched_tokens=160, max_num_sequences=24, max_num_drafting_tokens=128
    )
    engine = load_engine(default_folder, config, frozenset())
    params = SamplingParams(temperature=0, max_tokens=8)
    outputs = await asyncio.gather(*(collect(engine, prompt, params) for prompt in prompts))
    await engine.aclose()
    num_close = check_greedy(default_folder, prompts, [tokens for tokens, _ in outputs])
    print(f"{num_close} of {8 * len(prompts)} tokens were as good as even")


@pytest.mark.parametrize(
    "params", [SamplingParams(seed=3, max_tokens=50), SamplingParams(seed=3, max_tokens=50, top_p=0.5)]
)
async def test_speculation_and_batching_do_not_change_what_is_drawn(tiny_folder: Path, params: SamplingParams) -> None:
    prompts = [[7, 8, 9] * 10, [20, 21, 22, 23] * 5, [40] * 9]
    outputs = []
    for strain in ("plain", ALL):
        engine = make(tiny_folder, STRAINS[strain])
        if strain == "plain":
            outputs.append([await collect(engine, prompt, params) for prompt in prompts])
        else:
            named = outputs[0][0][0]  # the text itself: every draft is right
            outputs.append(
                await asyncio.gather(*(collect(engine, prompt, params, drafts=[named]) for prompt in prompts))
            )
        await engine.aclose()
    assert outputs[0] == outputs[1]


async def test_a_draft_that_is_right_takes_fewer_steps(tiny_folder: Path) -> None:
    engine = make(tiny_folder)
    params = SamplingParams(temperature=0, max_tokens=100)
    text, _ = await collect(engine, [5, 6, 7], params)
    steps = [output async for output in engine.generate([5, 6, 7], params, [text])]
    assert [token for output in steps for token in output.token_ids] == text
    assert len(steps) < 30
    await engine.aclose()


async def test_continuations_that_fork_where_a_draft_could_begin_stay_their_own(tiny_folder: Path) -> None:
    """A chunk leaves one token of the prompt, as if the sequence were decoding already."""
    prompt = [5, 6, 7] * 8 + [5]
    engine, plain = make(tiny_folder, STRAINS["chunked and speculating"]), make(tiny_folder)
    for params in (GREEDY, SamplingParams(temperature=1, seed=1, max_tokens=20)):
        expected, outputs = [], [list[int]() for _ in range(3)]
        for index in range(3):
            one = dataclasses.replace(params, seed=None if params.seed is None else params.seed + index)
            expected.append((await collect(plain, prompt, one))[0])
        drafts = [[*prompt, *expected[0]]]
        async for output in engine.generate(prompt, dataclasses.replace(params, n=3), drafts):
            outputs[output.index] += output.token_ids
        assert outputs == expected
    await engine.aclose()
    await plain.aclose()
