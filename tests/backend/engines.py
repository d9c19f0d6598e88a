"""Engines over the tiny model, and what their tests ask of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from sluice.backend.base import Engine, FinishReason, SamplingParams
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.loading import load_engine

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
    from transformers import AutoModelForCausalLM  # here, as most of what uses this module needs no reference

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
