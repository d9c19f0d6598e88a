"""transformers' continuous batching on the same prompts: what the engine is measured against."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sluice.backend.bench.workload import Prompt
from sluice.backend.embedded.load import WeightForm
from sluice.backend.embedded.passing_thread import in_passing_thread
from sluice.backend.errors import BackendError
from sluice.backend.tokenizer import Tokenizer


class ContinuousBatching:
    """A causal model of transformers; its manager is kept from batch to batch, as a server would keep it."""

    def __init__(self, model: Any, **sizes: int) -> None:
        """`sizes` are fields of transformers' ContinuousBatchingConfig; what is not given it finds by itself."""
        import transformers

        config: Any = transformers.ContinuousBatchingConfig
        self._model = model
        self._config = config(**sizes)

    def tokens_per_s(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> float:
        """Output tokens/s of all prompts together, greedy, none ended early. Raises BackendError."""
        import transformers

        make_config: Any = transformers.GenerationConfig
        generation = make_config(max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        start_s = time.perf_counter()
        outputs = self._model.generate_batch(
            [list(prompt) for prompt in prompts],
            generation_config=generation,
            continuous_batching_config=self._config,
            persistent_manager=True,
        )
        duration_s = time.perf_counter() - start_s
        num_generated = sum(len(output.generated_tokens) for output in outputs.values())
        if num_generated != num_tokens * len(prompts):
            raise BackendError(f"transformers made {num_generated} tokens, not {num_tokens * len(prompts)}")
        return num_generated / duration_s


def num_pages(num_streams: int, num_tokens: int) -> int:
    """Pages of transformers' cache with room for twice so many streams of so many tokens each: none has to wait."""
    import transformers

    make_config: Any = transformers.ContinuousBatchingConfig
    config = make_config()
    page_tokens = int(getattr(config, "page_size", None) or config.block_size)  # the older name, before 5.17
    return 2 * num_streams * -(-num_tokens // page_tokens)


class TransformersBatching:
    """A model folder in this process, on the engine's device and in its float dtype: bfloat16 beside int8 and int4.

    Args:
        folder: the model's.
        form: of the engine's weights.
        max_num_streams: of a batch.
        longest: a prompt that no other is longer than, with its output.
    """

    def __init__(self, folder: Path, form: WeightForm, max_num_streams: int, longest: Prompt) -> None:
        from transformers import AutoModelForCausalLM

        def load() -> Any:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=form.dtype, local_files_only=True)
            return model.eval().to(form.device)

        self._tokenizer = Tokenizer(folder)
        model = in_passing_thread(load)  # as the engine's, so that both have the cores' OpenMP workers to themselves
        # On CPUs sized by hand: left alone it takes most of the free memory for its cache, and the time to clear it.
        num_tokens = len(self._tokenizer.encode(longest.text)) + longest.num_tokens
        sizes = {
            "num_blocks": num_pages(max_num_streams, num_tokens),
            "max_batch_tokens": 512,
            "max_requests_per_batch": max_num_streams,
        }
        self._batching = ContinuousBatching(model, **(sizes if form.device.type == "cpu" else {}))
        self._batching.tokens_per_s([self._tokenizer.encode("Once")] * max_num_streams, 2)  # starts the manager

    def run(self, prompts: Sequence[Prompt]) -> float:
        """Output tokens/s of all prompts together."""
        inputs = [self._tokenizer.encode(prompt.text) for prompt in prompts]
        return self._batching.tokens_per_s(inputs, prompts[0].num_tokens)
