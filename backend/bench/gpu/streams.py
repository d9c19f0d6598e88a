"""Drives one engine of random weights with prompts of random tokens, each another, and times what it does."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence

from sluice.backend.base import SamplingParams
from sluice.backend.bench.gpu.kernels import KernelTimes, record
from sluice.backend.bench.gpu.shapes import Shape, random_weights
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import make_engine, weight_form

_NUM_RECORDED_TOKENS = 24


def random_prompts(rng: random.Random, shape: Shape, num_prompts: int, num_tokens: int) -> list[list[int]]:
    """No two share a beginning, so that no cache helps."""
    return [[rng.randrange(shape.config.vocab_size) for _ in range(num_tokens)] for _ in range(num_prompts)]


class Streams:
    """An engine of `shape`; its methods warm up, then give medians of rounds."""

    def __init__(self, shape: Shape, config: EngineConfig, num_rounds: int) -> None:
        """Raises BackendError."""
        form = weight_form(config)
        self._shape = shape
        self._engine = make_engine(shape.config, random_weights(shape.config, form), form, config, frozenset())
        self._num_rounds = num_rounds
        self._rng = random.Random(0)  # noqa: S311 - no secret

    async def decoding(self) -> float:
        """Tokens/s of one stream, from the first token to the last."""
        num_tokens = self._shape.num_output_tokens
        values = []
        for _ in range(self._num_rounds + 1):
            first_s, end_s = await self._run(self._prompts(1, self._shape.num_prompt_tokens), num_tokens)
            values.append((num_tokens - 1) / (end_s - first_s))
        return statistics.median(values[1:])

    async def many(self, num_tokens: int) -> float:
        """Output tokens/s of many streams of `num_tokens` each, their prompts included."""
        shape, values = self._shape, []
        for _ in range(self._num_rounds + 1):
            prompts = self._prompts(shape.num_streams, shape.num_prompt_tokens)
            _, end_s = await self._run(prompts, num_tokens)
            values.append(shape.num_streams * num_tokens / end_s)
        return statistics.median(values[1:])

    async def prefill_s(self) -> float:
        """Seconds to the first token of a long prompt."""
        values = []
        for _ in range(self._num_rounds + 1):
            first_s, _ = await self._run(self._prompts(1, self._shape.num_prefill_tokens), 1)
            values.append(first_s)
        return statistics.median(values[1:])

    async def kernels(self) -> dict[str, KernelTimes]:
        """What the device does in decoding steps of one stream and of many, and in a long prompt's."""
        shape, times = self._shape, {}
        for num_streams in (1, shape.num_streams):
            prompts = self._prompts(num_streams, shape.num_prompt_tokens)
            await self._run(prompts, 1)  # so that the prompts are in the cache
            with record() as seen:
                await self._run(prompts, _NUM_RECORDED_TOKENS)
            times[f"{num_streams} × {_NUM_RECORDED_TOKENS} tokens"] = seen
        with record() as seen:
            await self._run(self._prompts(1, shape.num_prefill_tokens), 1)
        return times | {f"prompt of {shape.num_prefill_tokens}": seen}

    async def aclose(self) -> None:
        """End the engine."""
        await self._engine.aclose()

    def _prompts(self, num_prompts: int, num_tokens: int) -> list[list[int]]:
        return random_prompts(self._rng, self._shape, num_prompts, num_tokens)

    async def _run(self, prompts: Sequence[list[int]], num_tokens: int) -> tuple[float, float]:
        """Seconds to the last first token, and to the end."""
        params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_end=True)
        start_s = time.perf_counter()

        async def one(prompt: list[int]) -> float:
            first_s = 0.0
            async for output in self._engine.generate(prompt, params):
                if output.token_ids and not first_s:
                    first_s = time.perf_counter() - start_s
            return first_s

        firsts_s = await asyncio.gather(*(one(prompt) for prompt in prompts))
        return max(firsts_s), time.perf_counter() - start_s
