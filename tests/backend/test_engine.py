from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

from sluice.backend.base import FinishReason, SamplingParams
from sluice.backend.embedded.engine import EmbeddedEngine
from tests.backend.engines import ALL, GREEDY, STRAINS, collect, make, num_held_blocks
from tests.effort import scaled


async def test_a_stop_token_ends_the_sequence_and_is_not_part_of_it(engine: EmbeddedEngine) -> None:
    tokens, reason = await collect(engine, [5, 6, 7], GREEDY)
    assert (len(tokens), reason) == (20, FinishReason.LENGTH)
    stop = tokens[3]
    params = SamplingParams(temperature=0, max_tokens=20, stop_token_ids=frozenset({stop}))
    assert await collect(engine, [5, 6, 7], params) == (tokens[: tokens.index(stop)], FinishReason.STOP)


async def test_the_models_end_token_can_be_ignored(tiny_folder: Path, engine: EmbeddedEngine) -> None:
    tokens, _ = await collect(engine, [5, 6, 7], GREEDY)
    ending = make(tiny_folder, end=frozenset({tokens[4]}))
    assert (await collect(ending, [5, 6, 7], GREEDY))[1] is FinishReason.STOP
    ignoring = SamplingParams(temperature=0, max_tokens=20, ignore_end=True)
    assert (await collect(ending, [5, 6, 7], ignoring))[0] == tokens
    await ending.aclose()


async def test_the_window_bounds_the_output(engine: EmbeddedEngine) -> None:
    tokens, reason = await collect(engine, [5] * 506, SamplingParams(temperature=0))
    assert (len(tokens), reason) == (6, FinishReason.LENGTH)


async def test_several_continuations_share_the_prompt(engine: EmbeddedEngine) -> None:
    params = SamplingParams(n=3, seed=9, max_tokens=30)
    tokens: dict[int, list[int]] = {0: [], 1: [], 2: []}
    reasons = {}
    async for output in engine.generate([5, 6, 7] * 7, params):
        tokens[output.index] += output.token_ids
        reasons[output.index] = output.finish_reason
    assert set(reasons.values()) == {FinishReason.LENGTH}
    assert len({tuple(output) for output in tokens.values()}) == 3
    for index in range(3):
        alone = SamplingParams(seed=9 + index, max_tokens=30)
        assert (await collect(engine, [5, 6, 7] * 7, alone))[0] == tokens[index]


async def test_several_continuations_may_end_with_their_first_token(engine: EmbeddedEngine) -> None:
    params = SamplingParams(n=3, max_tokens=1)
    outputs = [output async for output in engine.generate([5, 6, 7], params)]
    assert sorted(output.index for output in outputs) == [0, 1, 2]
    assert all(output.finish_reason is FinishReason.LENGTH for output in outputs)
    assert num_held_blocks(engine) == 0


async def test_logprobs_come_with_each_token(engine: EmbeddedEngine) -> None:
    params = SamplingParams(temperature=0, max_tokens=12, num_logprobs=2)
    num_tokens = 0
    async for output in engine.generate([5, 6, 7] * 4, params):
        assert len(output.logprobs) == len(output.token_ids)
        for token, item in zip(output.token_ids, output.logprobs, strict=True):
            assert item.top[0] == (token, item.logprob)
            assert len(item.top) == 2
            num_tokens += 1
    assert num_tokens == 12


async def test_a_known_prompt_is_not_computed_again(engine: EmbeddedEngine) -> None:
    prompt = list(range(10, 60))
    outputs = [output async for output in engine.generate(prompt, GREEDY)]
    again = [output async for output in engine.generate([*prompt, 99], GREEDY)]
    assert {output.num_cached_tokens for output in outputs} == {0}
    assert {output.num_cached_tokens for output in again} == {48}


async def test_a_closed_stream_frees_its_blocks_at_once(engine: EmbeddedEngine) -> None:
    async with aclosing(engine.generate([5, 6], SamplingParams(temperature=0))) as outputs:
        async for _ in outputs:
            break
        assert num_held_blocks(engine) > 0
    async with asyncio.timeout(10):
        await collect(engine, [5, 6, 7], SamplingParams(max_tokens=1))
    assert num_held_blocks(engine) == 0


async def test_random_requests_with_cancellations_leave_every_block_free(tiny_folder: Path) -> None:
    """10,000 of them in the full run."""
    rng = random.Random(4)
    engine = make(tiny_folder, STRAINS[ALL])

    async def one() -> None:
        prompt = [rng.randrange(2, 6) for _ in range(rng.randrange(1, 200))]
        params = SamplingParams(
            n=rng.choice((1, 1, 3)), max_tokens=rng.randrange(1, 30), temperature=rng.choice((0, 1))
        )
        limit = rng.choice((0, 2, 1000))
        async with aclosing(engine.generate(prompt, params)) as outputs:
            async for _ in outputs:
                limit -= 1
                if limit < 0:
                    break

    num_requests = scaled(334)
    for start in range(0, num_requests, 25):
        await asyncio.gather(*(one() for _ in range(min(25, num_requests - start))))
    await collect(engine, [5], SamplingParams(max_tokens=1))
    assert num_held_blocks(engine) == 0
    assert not engine._worker._requests
    assert not engine._worker._drafting._drafters
    await engine.aclose()
