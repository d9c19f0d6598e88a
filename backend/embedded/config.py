"""Settings of one embedded engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes and limits."""

    device: str = "cpu"
    """As torch names it."""
    dtype: str = "float32"
    """Of the weights and the matrix products, as torch names it; `int8`: matrices in 8 bits, products in bfloat16."""
    max_model_len: int | None = None
    """Tokens of prompt and output together; None: what the model was made for. The cache may allow fewer."""
    block_size: int = 16
    """Tokens in a block of the cache."""
    kv_memory_bytes: int = 2 << 30
    """Most memory for keys and values. The system gives it as it is used."""
    max_num_sequences: int = 64
    """Sequences that are computed together."""
    max_num_batched_tokens: int = 512
    """Tokens of one step: more makes prompts faster, and streams beside them slower."""
    max_num_waiting: int = 1024
    """Requests that may wait; more are refused."""
    max_num_draft_tokens: int = 16
    """Tokens proposed at a time for one sequence; 0 turns speculation off."""
    max_num_drafting_tokens: int = 32
    """Tokens of a step with drafts, over all sequences: beyond it, computing them costs more than it saves."""
