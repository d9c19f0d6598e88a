"""The engine: one worker thread runs the model, requests wait in line.

The event loop never waits for a forward pass: tokens cross from the worker to the caller's loop one by one. Knows no
text.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from sluice.backend.base import FinishReason, SamplingParams, TokenOutput
from sluice.backend.embedded.sampling import sample
from sluice.backend.errors import ContextLengthError, EngineClosedError, EngineError, InvalidRequestError


@dataclass(eq=False)
class _Request:
    prompt: list[int]
    params: SamplingParams
    loop: asyncio.AbstractEventLoop
    outputs: asyncio.Queue[TokenOutput | Exception] = field(default_factory=asyncio.Queue)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def put(self, item: TokenOutput | Exception) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.outputs.put_nowait, item)


class EmbeddedEngine:
    """Runs one model on CPU or CUDA, one request at a time, first come first served."""

    def __init__(self, model: Any, end_token_ids: frozenset[int]) -> None:
        self._model = model
        self._end_token_ids = end_token_ids
        self._max_model_len: int = model.config.max_position_embeddings
        self._vocab_size: int = model.config.vocab_size
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._worker = threading.Thread(target=self._work, name="sluice-engine", daemon=True)
        self._worker.start()

    @classmethod
    def load(cls, folder: Path, *, device: str, dtype: str, end_token_ids: frozenset[int]) -> EmbeddedEngine:
        """Read the weights in `folder`; `device` and `dtype` as torch names them."""
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
        return cls(model.to(device).eval(), end_token_ids)

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and output may have together."""
        return self._max_model_len

    async def generate(self, prompt: Sequence[int], params: SamplingParams) -> AsyncGenerator[TokenOutput]:
        """Stream the continuation of `prompt`; see `Engine.generate`."""
        if not prompt:
            raise InvalidRequestError("the prompt is empty")
        if len(prompt) >= self._max_model_len:
            raise ContextLengthError(len(prompt), self._max_model_len)
        if self._closed.is_set():
            raise EngineClosedError("the engine is shutting down")
        request = _Request(list(prompt), params, asyncio.get_running_loop())
        self._requests.put(request)
        try:
            while True:
                output = await request.outputs.get()
                if isinstance(output, Exception):
                    raise output
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            request.cancelled.set()

    async def aclose(self) -> None:
        """End all requests and the worker. Idempotent."""
        self._closed.set()
        self._requests.put(None)
        await asyncio.to_thread(self._worker.join)

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                self._run(request)
            except Exception as error:
                request.put(EngineError(f"the model failed: {error!r}"))
        while not self._requests.empty():
            if (request := self._requests.get()) is not None:
                request.put(EngineClosedError("the engine is shutting down"))

    @torch.inference_mode()
    def _run(self, request: _Request) -> None:
        """Generate until the end, a cancellation or the engine's close."""
        params = request.params
        room = self._max_model_len - len(request.prompt)
        budget = room if params.max_tokens is None else min(params.max_tokens, room)
        stops = self._end_token_ids | params.stop_token_ids
        device = self._model.device
        generator = torch.Generator(device).manual_seed(params.seed) if params.seed is not None else None
        cache = DynamicCache(config=self._model.config)
        ids = torch.tensor([request.prompt], device=device)
        for index in range(budget):
            if request.cancelled.is_set():
                return
            if self._closed.is_set():
                request.put(EngineClosedError("the engine is shutting down"))
                return
            logits = self._model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[0, -1]
            token = sample(logits, params, generator)
            if token in stops:
                request.put(TokenOutput((), FinishReason.STOP))
                return
            request.put(TokenOutput((token,), FinishReason.LENGTH if index == budget - 1 else None))
            ids = torch.tensor([[token]], device=device)
