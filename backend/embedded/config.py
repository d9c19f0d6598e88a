"""Settings of one embedded engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "int4")
KV_DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "fp8")
"""What users may say of the settings below."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes and limits."""

    device: str = "cpu"
    """`cpu`, `cuda` (the first that torch sees), or `auto`: a GPU if there is one."""
    dtype: str = "float32"
    """Of the weights and the matrix products, as torch names it.

    `int8`, `int4`: matrices in so many bits, products in bfloat16. `auto`: bfloat16 where the device computes in it.
    """
    kv_dtype: str = "auto"
    """Of keys and values in the cache: `float32`, `bfloat16`, `float16`, `int8` or `fp8`.

    `auto`: as attention computes, which is float32 on CPUs and the dtype of the weights elsewhere.
    """
    max_model_len: int | None = None
    """Tokens of prompt and output together; None: what the model was made for. The cache may allow fewer."""
    block_size: int = 16
    """Tokens in a block of the cache."""
    kv_memory_bytes: int | None = None
    """Most memory for keys and values. None: 2 GiB on CPUs, where the system gives it as it is used; on a GPU nine
    tenths of what the weights leave free."""
    max_num_sequences: int = 64
    """Sequences that are computed together."""
    max_num_batched_tokens: int | None = None
    """Tokens of one step: more makes prompts faster, and streams beside them slower. None: 512, on a GPU 8192."""
    max_num_waiting: int = 1024
    """Requests that may wait; more are refused."""
    max_num_draft_tokens: int = 16
    """Tokens proposed at a time for one sequence; 0 turns speculation off."""
    max_num_drafting_tokens: int | None = None
    """Tokens of a step with drafts, over all sequences: beyond it, computing them costs more than it saves.

    None: 32, on a GPU 256.
    """
    use_cuda_graphs: bool = True
    """Record decoding steps at the start, on a GPU."""
    draft_model: Path | None = None
    """Folder of a smaller model with the same tokenizer, which proposes tokens where nothing earlier can be copied."""
