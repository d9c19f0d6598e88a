from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sluice.backend.base import Engine, FinishReason, SamplingParams
from sluice.backend.bench.gpu.shapes import SHAPES
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.loading import gpu_kv_bytes, load_engine
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.embedded.scheduler import Scheduler
from sluice.backend.errors import (
    BackendError,
    ContextLengthError,
    EngineClosedError,
    EngineError,
    EngineOverloadedError,
    InvalidRequestError,
    ModelUnavailableError,
)
from tests.effort import scaled

GREEDY = SamplingParams(temperature=0, max_tokens=20)
BYTES_PER_TOKEN = 2 * 2 * 2 * 16 * 4  # keys and values × layers × kv_heads × head_dim × float32
CLOSE = 1e-3
"""Where the two best logits are closer than this, either token is right."""

SMALL_CACHE = 20 * 16 * BYTES_PER_TOKEN


def strained(*, is_chunked: bool, is_preempted: bool, is_speculating: bool) -> EngineConfig:
    return EngineConfig(
        max_num_batched_tokens=24 if is_chunked else None,
        max_num_sequences=20 if is_chunked else 64,
        kv_memory_bytes=SMALL_CACHE if is_preempted else None,
        max_num_draft_tokens=16 if is_speculating else 0,
        max_num_drafting_tokens=512,
    )


STRAINS: dict[str, EngineConfig] = {
    " and ".join(name for name, is_on in zip(("chunked", "preempted", "speculating"), on, strict=True) if is_on)
    or "plain": strained(is_chunked=on[0], is_preempted=on[1], is_speculating=on[2])
    for on in itertools.product((False, True), repeat=3)
}
ALL = "chunked and preempted and speculating"


def make(folder: Path, config: EngineConfig | None = None, end: frozenset[int] = frozenset()) -> EmbeddedEngine:
    return load_engine(folder, config or EngineConfig(), end)


@pytest.fixture
async def engine(tiny_folder: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = make(tiny_folder)
    yield engine
    await engine.aclose()
    assert num_held_blocks(engine) == 0


def num_held_blocks(engine: EmbeddedEngine) -> int:
    blocks = engine._scheduler.blocks
    return blocks.num_blocks - blocks.num_available


async def collect(
    engine: Engine, prompt: list[int], params: SamplingParams, **more: Any
) -> tuple[list[int], FinishReason | None]:
    tokens: list[int] = []
    reason = None
    async for output in engine.generate(prompt, params, **more):
        tokens += output.token_ids
        reason = output.finish_reason
    return tokens, reason


def check_greedy(folder: Path, prompts: list[list[int]], outputs: list[list[int]]) -> int:
    """Every token is the one that transformers' float32 logits put first; returns how many were as good as even."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    num_close = 0
    for prompt, output in zip(prompts, outputs, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + output])).logits[0, len(prompt) - 1 : -1]
        for values, token in zip(logits, output, strict=True):
            if int(values.argmax()) != token:
                assert float(values.max() - values[token]) < CLOSE
                num_close += 1
    return num_close


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


@pytest.mark.parametrize(
    ("prompt", "params", "kind", "says"),
    [
        ([5] * 512, GREEDY, ContextLengthError, r"512 tokens.*512"),
        ([], GREEDY, InvalidRequestError, "empty"),
        ([5, 999], GREEDY, InvalidRequestError, "prompt has token 999"),
        ([5], SamplingParams(logit_bias={-1: 1.0}), InvalidRequestError, "logit_bias has token -1"),
        ([5], SamplingParams(n=0), InvalidRequestError, "n is 0"),
    ],
)
async def test_what_cannot_be_served_is_refused(
    engine: EmbeddedEngine, prompt: list[int], params: SamplingParams, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await collect(engine, prompt, params)


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


async def test_a_failing_step_fails_its_requests_and_the_engine_serves_on(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr(ModelRunner, "run", fail)
        with pytest.raises(EngineError, match="out of luck"):
            await collect(engine, [5, 6, 7], GREEDY)
    assert (await collect(engine, [5, 6, 7], GREEDY))[1] is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("what", "error"), [((Scheduler, "schedule"), RuntimeError), ((ModelRunner, "run"), torch.AcceleratorError)]
)
async def test_a_mistake_of_its_own_and_a_lost_device_leave_nobody_waiting(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, what: tuple[type, str], error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("out of order")

    monkeypatch.setattr(*what, fail)
    engine = make(tiny_folder)
    results = await asyncio.gather(*(collect(engine, [5], GREEDY) for _ in range(3)), return_exceptions=True)
    says = f"has stopped: {error.__name__}"
    assert all(isinstance(result, EngineError) and says in str(result) for result in results)
    assert not engine.is_running
    await engine.aclose()


async def test_more_requests_than_may_wait_are_refused(tiny_folder: Path) -> None:
    engine = make(tiny_folder, EngineConfig(max_num_waiting=1, max_num_sequences=1))
    results = await asyncio.gather(*(collect(engine, [5], GREEDY) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, EngineOverloadedError) for result in results) == 2
    await engine.aclose()


async def test_closing_ends_what_runs_and_refuses_what_comes(tiny_folder: Path) -> None:
    engine = make(tiny_folder)
    running = [asyncio.create_task(collect(engine, [5], SamplingParams(temperature=0))) for _ in range(3)]
    await asyncio.sleep(0.01)
    await engine.aclose()
    await engine.aclose()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(result, EngineClosedError) for result in results)
    with pytest.raises(EngineClosedError):
        await collect(engine, [5], GREEDY)


async def test_a_small_cache_bounds_the_window(tiny_folder: Path) -> None:
    engine = make(tiny_folder, EngineConfig(kv_memory_bytes=4 * 16 * BYTES_PER_TOKEN))
    assert engine.max_model_len == 64
    assert len((await collect(engine, [5] * 60, SamplingParams(temperature=0)))[0]) == 4
    await engine.aclose()


def test_a_full_steps_activations_are_kept_free_on_a_gpu() -> None:
    model = SHAPES["8b"].config
    gib = 2**30
    assert gpu_kv_bytes(60 * gib, model, 8192) == int(60 * gib * 0.9)
    assert 3 * gib < gpu_kv_bytes(7 * gib, model, 8192) < 5 * gib
    assert gpu_kv_bytes(7 * gib, model, 512) > 6 * gib
    assert gpu_kv_bytes(gib, model, 8192) == 0


def test_settings_that_cannot_be_served_say_so(tiny_folder: Path) -> None:
    with pytest.raises(BackendError, match="holds only 0 tokens"):
        make(tiny_folder, EngineConfig(kv_memory_bytes=100))
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="'cuda'"):
            make(tiny_folder, EngineConfig(device="cuda"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "int4"])
async def test_other_dtypes_run(tiny_folder: Path, dtype: str) -> None:
    engine = make(tiny_folder, EngineConfig(dtype=dtype))
    assert len((await collect(engine, [5, 6, 7], GREEDY))[0]) == 20
    await engine.aclose()


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float16", "int8", "fp8"])
async def test_caches_in_fewer_bits_hold_more_and_say_nearly_the_same(tiny_folder: Path, kv_dtype: str) -> None:
    prompt = [random.Random(5).randrange(2, 258) for _ in range(150)]
    params = SamplingParams(temperature=0, max_tokens=1, num_logprobs=3)
    answers, sizes = [], []
    for name in ("float32", kv_dtype):
        engine = make(tiny_folder, EngineConfig(dtype="float32", kv_dtype=name, kv_memory_bytes=1 << 20))
        sizes.append(engine.stats().num_blocks)
        answers.append(await anext(engine.generate(prompt, params)))
        again = await anext(engine.generate(prompt, params))
        assert again.token_ids == answers[-1].token_ids
        assert again.num_cached_tokens == 144
        await engine.aclose()
    assert sizes[1] > 1.9 * sizes[0]
    likely, other = (dict(answer.logprobs[0].top) for answer in answers)
    assert set(likely) & set(other)
    for token in set(likely) & set(other):
        assert other[token] == pytest.approx(likely[token], abs=0.15)


def test_broken_weights_name_the_folder(tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelUnavailableError, match=str(tmp_path)):
        make(tmp_path)
