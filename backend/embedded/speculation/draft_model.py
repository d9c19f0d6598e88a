"""Proposes what a smaller model would write.

It draws with the random numbers that the large model will draw with, so that the two agree as often as their
distributions let them, at any temperature (drafter-invariant speculation, arXiv 2408.07978). Has a cache of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from sluice.backend.base import SamplingParams
from sluice.backend.embedded.attention import AttentionBackend, Span, make_attention
from sluice.backend.embedded.block_manager import BlockManager
from sluice.backend.embedded.kv_cache import KVCache, num_bytes_per_block
from sluice.backend.embedded.load import WeightForm, load_weights
from sluice.backend.embedded.model import Decoder
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.embedded.sampler import Row, sample
from sluice.backend.embedded.speculation.adaptive_length import AdaptiveLength
from sluice.backend.errors import ModelUnavailableError

_BLOCK_SIZE = 16
_KV_BYTES = 1 << 30
_CHUNK = 512
"""Tokens of a prompt that are computed at a time."""


class DraftModel:
    """The model that the drafters of all sequences share."""

    def __init__(self, decoder: Decoder, cache: KVCache, attention: AttentionBackend) -> None:
        self._decoder = decoder
        self._attention = attention
        self._device = cache.device
        self.max_model_len = decoder.config.max_model_len
        self.blocks = BlockManager(cache.num_blocks, cache.block_size)

    @classmethod
    def load(cls, folder: Path, form: WeightForm, vocab_size: int) -> DraftModel:
        """Raises ModelUnavailableError; also for a vocabulary that is not the large model's."""
        config = ModelConfig.read(folder)
        if config.vocab_size != vocab_size:
            reason = f"it has {config.vocab_size} tokens, the model that it drafts for {vocab_size}"
            raise ModelUnavailableError(str(folder), reason)
        weights = load_weights(folder, config, form)
        dtype = torch.float32 if form.device.type == "cpu" else form.dtype
        num_blocks = _KV_BYTES // num_bytes_per_block(config, _BLOCK_SIZE, dtype)
        config = dataclasses.replace(config, max_model_len=min(config.max_model_len, num_blocks * _BLOCK_SIZE))
        cache = KVCache(config, num_blocks, _BLOCK_SIZE, form.device, stored=dtype, read=dtype)
        return cls(Decoder(config, weights, cache), cache, make_attention(cache))

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int], first: int, block_table: Sequence[int]) -> torch.Tensor:
        """Compute `tokens`, which stand from position `first` on; float32 logits (1, vocabulary) behind the last."""
        positions = torch.arange(first, first + len(tokens), device=self._device)
        table = torch.tensor(block_table, device=self._device)
        slots = table[positions // _BLOCK_SIZE] * _BLOCK_SIZE + positions % _BLOCK_SIZE
        spans = [Span(0, len(tokens), first + len(tokens), block_table)]
        ids = torch.tensor(tokens, device=self._device)
        return self._decoder.forward(ids, positions, slots, self._attention.begin(spans), positions[-1:] - first)


class ModelDrafter:
    """Drafter for one sequence."""

    def __init__(self, model: DraftModel, params: SamplingParams, seed: int, num_prompt_tokens: int) -> None:
        self._model = model
        self._params = dataclasses.replace(params, num_logprobs=None)
        self._seed = seed
        self._num_prompt_tokens = num_prompt_tokens
        self._length = AdaptiveLength(least=1)
        self._computed: list[int] = []
        """Tokens whose keys and values are in the cache: known ones, then what was proposed last."""
        self._num_known = 0
        """How many of them were known."""
        self._block_table: list[int] = []

    def propose(self, tokens: Sequence[int], max_num_tokens: int) -> Sequence[int]:
        """See `Drafter`; nothing where the sequence is longer than the window, or the cache is full."""
        num_tokens = min(max_num_tokens, self._length.tokens)
        if num_tokens <= 0 or not self._reserve(len(tokens) + num_tokens):
            return ()
        self._forget_rejected(tokens)
        pending = list(tokens[len(self._computed) :])
        draft: list[int] = []
        while len(draft) < num_tokens:
            logits = self._compute(pending)
            row = Row(0, self._params, self._seed, tokens, self._num_prompt_tokens, draft)
            pending = [sample(logits, [row])[0].token]
            draft += pending
        return draft

    def note(self, num_proposed: int, num_accepted: int) -> None:
        """See `Drafter`."""
        self._length.note(num_proposed, num_accepted)

    def close(self) -> None:
        """Give up the sequence's blocks."""
        self._model.blocks.release(self._block_table)
        self._block_table = []

    def _reserve(self, num_tokens: int) -> bool:
        blocks, table = self._model.blocks, self._block_table
        num_missing = blocks.blocks_for(num_tokens) - len(table)
        if num_tokens > self._model.max_model_len or num_missing > blocks.num_available:
            return False
        if num_missing > 0:
            table += blocks.allocate(num_missing, after=table[-1] if table else None)
        return True

    def _forget_rejected(self, tokens: Sequence[int]) -> None:
        """Keep what is computed as far as it stands in `tokens`, less the last, behind which the logits are wanted."""
        limit = min(len(self._computed), len(tokens) - 1)
        same = next((n for n in range(self._num_known, limit) if self._computed[n] != tokens[n]), limit)
        del self._computed[same:]
        self._num_known = len(tokens) - 1

    def _compute(self, pending: Sequence[int]) -> torch.Tensor:
        """Logits behind the last of `pending`, which has at least one token."""
        for start in range(0, len(pending), _CHUNK):
            chunk = pending[start : start + _CHUNK]
            logits = self._model.logits(chunk, len(self._computed), self._block_table)
            self._computed += chunk
        return logits
