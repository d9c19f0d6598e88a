"""The engine: takes requests from event loops and lets a thread of its own step the model for all of them at once.

Requests, cancellations and the end go to the thread through an inbox; tokens come back to each caller's event loop,
which never waits for a forward pass. Knows token ids, not text.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import queue
import random
import threading
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass

from sluice.backend.base import EngineStats, SamplingParams, TokenOutput
from sluice.backend.embedded.request import Request
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.embedded.scheduler import Scheduler
from sluice.backend.embedded.sequence import Sequence
from sluice.backend.embedded.speculation import Drafting
from sluice.backend.embedded.worker import Worker
from sluice.backend.errors import (
    ContextLengthError,
    EngineClosedError,
    EngineError,
    EngineOverloadedError,
    InvalidRequestError,
)

_log = logging.getLogger(__name__)
_SHUTTING_DOWN = "the engine is shutting down"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for, and how many may be open."""

    max_model_len: int
    """Tokens of prompt and output together."""
    vocab_size: int
    max_num_sequences: int
    """Continuations of one prompt, at most as many as are computed together."""
    max_num_open: int
    """Requests; more are refused."""


@dataclass(slots=True)
class _Cancel:
    request: Request


class EmbeddedEngine:
    """Runs one model for many callers; see `Engine`."""

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        drafting: Drafting,
        limits: Limits,
        end_token_ids: frozenset[int],
        on_failed: Callable[[str], None] | None = None,
    ) -> None:
        """Starts the thread.

        `end_token_ids` end an output. `on_failed` is called, in the thread, where a failure ends it: with why, once all
        requests were told.
        """
        self._scheduler = scheduler
        self._limits = limits
        self._end_token_ids = end_token_ids
        self._ids = itertools.count()
        self._inbox: queue.SimpleQueue[Request | _Cancel | None] = queue.SimpleQueue()
        self._stats = EngineStats()
        self._worker = Worker(runner, scheduler, drafting, self._stats)
        self._num_open = 0
        self._is_closed = False
        self._failure: str | None = None
        """Why it takes no requests, where nobody has closed it."""
        self._on_failed = on_failed or (lambda _: None)
        self._gate = threading.Lock()
        """Held to close, to put what a closed engine would never answer, and to count: callers' loops are many."""
        self._thread = threading.Thread(target=self._work, name="sluice-engine", daemon=True)
        self._thread.start()

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and output may have together."""
        return self._limits.max_model_len

    @property
    def is_running(self) -> bool:
        """Whether it takes requests."""
        return not self._is_closed

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self._limits.vocab_size

    async def generate(
        self, prompt: Many[int], params: SamplingParams, drafts: Many[Many[int]] = ()
    ) -> AsyncGenerator[TokenOutput]:
        """Stream the continuations of `prompt`; see `Engine.generate`."""
        request = self._request(prompt, params, drafts)
        with self._gate:
            self._check_open()
            self._inbox.put(request)
            self._num_open += 1
        num_running = params.n
        try:
            while num_running:
                output = await request.outputs.get()
                if isinstance(output, Exception):
                    num_running = 0
                    raise output
                num_running -= output.finish_reason is not None
                yield output
        finally:
            with self._gate:
                self._num_open -= 1
            if num_running:
                self._inbox.put(_Cancel(request))

    async def aclose(self) -> None:
        """End all requests and the thread. Idempotent."""
        with self._gate:
            self._is_closed = True
            self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def check(self, prompt: Many[int], params: SamplingParams) -> None:
        """See `Engine.check`."""
        self._check_open()
        if self._num_open >= self._limits.max_num_open:
            raise EngineOverloadedError(f"{self._num_open} requests are open already; try again later")
        max_model_len, vocab_size, max_n = self.max_model_len, self.vocab_size, self._limits.max_num_sequences
        if not prompt:
            raise InvalidRequestError("the prompt is empty")
        if len(prompt) >= max_model_len:
            raise ContextLengthError(len(prompt), max_model_len)
        for name, tokens in (("prompt", prompt), ("logit_bias", params.logit_bias)):
            if wrong := [token for token in tokens if not 0 <= token < vocab_size]:
                raise InvalidRequestError(f"{name} has token {wrong[0]}; the model's are 0 to {vocab_size - 1}", name)
        if not 1 <= params.n <= max_n:
            raise InvalidRequestError(f"n is {params.n}; it must be from 1 to {max_n}", "n")

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        blocks = self._scheduler.blocks
        return dataclasses.replace(
            self._stats,
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting),
            num_blocks=blocks.num_blocks,
            block_size=blocks.block_size,
            num_blocks_in_use=blocks.num_blocks - blocks.num_available,
        )

    def _request(self, prompt: Many[int], params: SamplingParams, texts: Many[Many[int]]) -> Request:
        """Raises RequestError, EngineError."""
        self.check(prompt, params)
        seed = random.getrandbits(62) if params.seed is None else params.seed
        room = self.max_model_len - len(prompt)
        sequences = [
            Sequence(
                next(self._ids),
                list(prompt),
                params,
                seed + index,
                params.make_constraint and params.make_constraint(),
                texts,
                max_output_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
                stop_token_ids=params.stop_token_ids | (frozenset() if params.ignore_end else self._end_token_ids),
            )
            for index in range(params.n)
        ]
        return Request(sequences, asyncio.get_running_loop())

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineClosedError(self._failure or _SHUTTING_DOWN)

    def _work(self) -> None:
        """The thread."""
        failure = None
        try:
            while self._receive():
                self._worker.step()
        except Exception as cause:  # our own mistake: nobody may be left waiting for a thread that is gone
            _log.exception("the engine has stopped")
            failure = f"the engine has stopped: {type(cause).__name__}"
        with self._gate:
            self._is_closed, self._failure = True, failure
        while not self._inbox.empty():
            if isinstance(item := self._inbox.get(), Request):
                self._worker.add(item)
        self._worker.fail(EngineClosedError(_SHUTTING_DOWN) if failure is None else EngineError(failure))
        if failure is not None:
            self._on_failed(failure)

    def _receive(self) -> bool:
        """Take what is in the inbox, waiting until there is something to compute; False when the engine is closed."""
        while not (self._worker.has_work and self._inbox.empty()):
            if not self._worker.has_work:
                self._worker.send()
            match self._inbox.get():
                case None:
                    return False
                case _Cancel(request):
                    self._worker.drop(request)
                case request:
                    self._worker.add(request)
        return True
