from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from sluice.backend.base import Engine, FinishReason, SamplingParams
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import load_engine
from sluice.backend.errors import ContextLengthError, EngineClosedError, InvalidRequestError, ModelUnavailableError

GREEDY = SamplingParams(temperature=0, max_tokens=20)


@pytest.fixture
async def engine(tiny_folder: Path) -> AsyncIterator[Engine]:
    engine = load_engine(tiny_folder, EngineConfig(), frozenset())
    yield engine
    await engine.aclose()


async def collect(engine: Engine, prompt: list[int], params: SamplingParams) -> tuple[list[int], FinishReason | None]:
    tokens: list[int] = []
    reason = None
    async for output in engine.generate(prompt, params):
        tokens += output.token_ids
        reason = output.finish_reason
    return tokens, reason


async def test_greedy_output_repeats_itself(engine: Engine) -> None:
    first = await collect(engine, [5, 6, 7], GREEDY)
    assert first == await collect(engine, [5, 6, 7], GREEDY)
    assert len(first[0]) == 20
    assert first[1] is FinishReason.LENGTH


async def test_a_stop_token_ends_the_sequence_and_is_not_part_of_it(engine: Engine) -> None:
    tokens, _ = await collect(engine, [5, 6, 7], GREEDY)
    stop = tokens[3]
    params = SamplingParams(temperature=0, max_tokens=20, stop_token_ids=frozenset({stop}))
    assert await collect(engine, [5, 6, 7], params) == (tokens[: tokens.index(stop)], FinishReason.STOP)


async def test_the_window_bounds_the_output(engine: Engine) -> None:
    tokens, reason = await collect(engine, [5] * 250, SamplingParams(temperature=0))
    assert (len(tokens), reason) == (6, FinishReason.LENGTH)


async def test_prompts_that_cannot_be_served_are_refused(engine: Engine) -> None:
    with pytest.raises(ContextLengthError, match=r"256 tokens.*256"):
        await collect(engine, [5] * 256, GREEDY)
    with pytest.raises(InvalidRequestError, match="empty"):
        await collect(engine, [], GREEDY)


async def test_a_closed_stream_makes_room_for_the_next(engine: Engine) -> None:
    async with aclosing(engine.generate([5, 6], SamplingParams(temperature=0))) as outputs:
        async for _ in outputs:
            break
    async with asyncio.timeout(10):
        assert (await collect(engine, [5, 6, 7], GREEDY))[1] is FinishReason.LENGTH


async def test_requests_at_once_get_their_own_answers(engine: Engine) -> None:
    prompts = [[5, 6, 7], [9, 8], [30, 31, 32, 33]]
    alone = [await collect(engine, prompt, GREEDY) for prompt in prompts]
    together = await asyncio.gather(*(collect(engine, prompt, GREEDY) for prompt in prompts))
    assert list(together) == alone


async def test_closing_ends_what_runs_and_refuses_what_comes(engine: Engine) -> None:
    running = [asyncio.create_task(collect(engine, [5], SamplingParams(temperature=0))) for _ in range(3)]
    await asyncio.sleep(0.01)
    await engine.aclose()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert any(isinstance(result, EngineClosedError) for result in results)
    with pytest.raises(EngineClosedError):
        await collect(engine, [5], GREEDY)


def test_broken_weights_name_the_folder(tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelUnavailableError, match=str(tmp_path)):
        load_engine(tmp_path, EngineConfig(), frozenset())
