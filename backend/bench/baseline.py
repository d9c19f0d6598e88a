"""transformers' continuous batching on the same prompts: what the engine is measured against."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sluice.backend.bench.workload import Prompt
from sluice.backend.tokenizer import Tokenizer

_NUM_BLOCKS = 64  # of 256 tokens
_MAX_BATCH_TOKENS = 512


class TransformersBatching:
    """A model in this process; float32, in which it is fastest on CPUs without matrix units."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._tokenizer = Tokenizer(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self._model = model.eval()

    def run(self, prompts: Sequence[Prompt]) -> float:
        """Output tokens/s of all prompts together, greedy, none ended early."""
        import transformers

        make_config: Any = transformers.GenerationConfig
        num_tokens = prompts[0].num_tokens
        config = make_config(max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        # Sized by hand: left to itself it takes most of the free memory for its cache, and the time to clear it.
        sizes: Any = transformers.ContinuousBatchingConfig
        batching = sizes(num_blocks=_NUM_BLOCKS, max_batch_tokens=_MAX_BATCH_TOKENS)
        inputs = [self._tokenizer.encode(prompt.text) for prompt in prompts]
        start_s = time.perf_counter()
        outputs = self._model.generate_batch(
            inputs, generation_config=config, continuous_batching_config=batching, warmup=False
        )
        duration_s = time.perf_counter() - start_s
        return sum(len(output.generated_tokens) for output in outputs.values()) / duration_s
