"""transformers' continuous batching on prompts of the same shape, in a process that is ended when its time is up.

Nothing bounds one of its batches from within, and one may be long: where no flash attention is installed, it computes a
step of all streams as one attention over the keys of all of them, under a mask, each key head copied for its whole
group, and without CUDA graphs. So short outputs come first, and each figure is there as soon as its batch has ended.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from sluice.backend.bench.baseline import ContinuousBatching, num_pages
from sluice.backend.bench.gpu.shapes import Shape
from sluice.backend.bench.gpu.streams import random_prompts
from sluice.backend.errors import BackendError

_CPU_BATCH_TOKENS = 512
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch of all streams came to."""

    num_tokens: int
    """Of each stream's output."""
    tokens_per_s: float
    """Of all streams' output together, their prompts included."""


def transformers_batches(shape: Shape, lengths: Sequence[int], device: str, limit_s: float) -> Iterator[Batch]:
    """One batch for each of `lengths`, in their order, as they end: fewer where the time, in seconds, is up before.

    Weights are random, in bfloat16. The time counts from the process's start; what a batch of the first length does for
    the first time is not measured. Raises BackendError if the process fails, which says why on stderr.
    """
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, shape, lengths, device), daemon=True)
    end_s = time.monotonic() + limit_s
    process.start()
    sender.close()
    try:
        while receiver.poll(max(0.0, end_s - time.monotonic())):
            try:
                yield receiver.recv()
            except EOFError:
                process.join(_END_S)
                if process.exitcode:
                    raise BackendError(f"transformers failed: its process ended with {process.exitcode}") from None
                return
    finally:
        process.kill()
        process.join()
        receiver.close()


def _measure(sender: Connection, shape: Shape, lengths: Sequence[int], device: str) -> None:
    """The process."""
    # Sized by hand, with room for twice as much: left alone it takes nearly all memory, and a mask as wide as that.
    sizes = {"num_blocks": num_pages(shape.num_streams, shape.num_prompt_tokens + max(lengths))}
    if device == "cpu":
        sizes["max_batch_tokens"] = _CPU_BATCH_TOKENS
    batching = ContinuousBatching(_model(shape, torch.device(device)), **sizes)
    rng = random.Random(1)  # noqa: S311 - no secret
    for number, num_tokens in enumerate([lengths[0], *lengths]):
        prompts = random_prompts(rng, shape, shape.num_streams, shape.num_prompt_tokens)
        tokens_per_s = batching.tokens_per_s(prompts, num_tokens)
        if number:
            sender.send(Batch(num_tokens, tokens_per_s))
    sender.close()


def _model(shape: Shape, device: torch.device) -> Any:
    import transformers

    config = shape.config
    llama = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_model_len,
        eos_token_id=None,
        bos_token_id=None,
    )
    make_model: Any = transformers.AutoModelForCausalLM.from_config
    with device:
        return make_model(llama, dtype=torch.bfloat16).eval()
