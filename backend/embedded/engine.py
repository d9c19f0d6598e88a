"""The engine: a worker thread that steps the model for all requests at once.

Requests, cancellations and the end come to it through an inbox; tokens go back to each caller's event loop, which never
waits for a forward pass. Knows token ids, not text.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import queue
import random
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass

from sluice.backend.base import EngineStats, FinishReason, SamplingParams, TokenLogprobs, TokenOutput
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.request import Request, send
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.embedded.sampler import Sampled
from sluice.backend.embedded.scheduler import Scheduler, Step
from sluice.backend.embedded.sequence import Sequence
from sluice.backend.embedded.speculation import Drafter, DraftModel, FirstOf, ModelDrafter, PromptLookup
from sluice.backend.errors import (
    ContextLengthError,
    EngineClosedError,
    EngineError,
    EngineOverloadedError,
    InvalidRequestError,
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Cancel:
    request: Request


class EmbeddedEngine:
    """Runs one model for many callers; see `Engine`."""

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        config: EngineConfig,
        *,
        max_model_len: int,
        max_num_drafting_tokens: int,
        vocab_size: int,
        end_token_ids: frozenset[int],
        draft_model: DraftModel | None = None,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._config = config
        self._max_model_len = max_model_len
        self._max_num_drafting_tokens = max_num_drafting_tokens
        self._vocab_size = vocab_size
        self._draft_model = draft_model
        self._end_token_ids = end_token_ids
        self._ids = itertools.count()
        self._inbox: queue.SimpleQueue[Request | _Cancel | None] = queue.SimpleQueue()
        self._requests: dict[Sequence, Request] = {}
        self._drafters: dict[Sequence, Drafter] = {}
        self._outputs: list[tuple[Request, TokenOutput | Exception]] = []
        """Not sent yet: what a step brings goes out while the next one is computed."""
        self._stats = EngineStats()
        self._num_open = 0
        self._is_closed = False
        self._gate = threading.Lock()
        """Held to close, and to put what a closed engine would never answer."""
        self._worker = threading.Thread(target=self._work, name="sluice-engine", daemon=True)
        self._worker.start()

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and output may have together."""
        return self._max_model_len

    @property
    def is_running(self) -> bool:
        """Whether it takes requests."""
        return not self._is_closed

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self._vocab_size

    async def generate(
        self, prompt: Many[int], params: SamplingParams, drafts: Many[Many[int]] = ()
    ) -> AsyncGenerator[TokenOutput]:
        """Stream the continuations of `prompt`; see `Engine.generate`."""
        request = self._request(prompt, params, drafts)
        with self._gate:
            if self._is_closed:
                raise EngineClosedError("the engine is shutting down")
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
            self._num_open -= 1
            if num_running:
                self._inbox.put(_Cancel(request))

    async def aclose(self) -> None:
        """End all requests and the worker. Idempotent."""
        with self._gate:
            self._is_closed = True
            self._inbox.put(None)
        await asyncio.to_thread(self._worker.join)

    def check(self, prompt: Many[int], params: SamplingParams) -> None:
        """See `Engine.check`."""
        if not prompt:
            raise InvalidRequestError("the prompt is empty")
        if len(prompt) >= self._max_model_len:
            raise ContextLengthError(len(prompt), self._max_model_len)
        for name, tokens in (("prompt", prompt), ("logit_bias", params.logit_bias)):
            if wrong := [token for token in tokens if not 0 <= token < self._vocab_size]:
                known = f"0 to {self._vocab_size - 1}"
                raise InvalidRequestError(f"{name} has token {wrong[0]}; the model's are {known}", name)
        if not 1 <= params.n <= self._config.max_num_sequences:
            raise InvalidRequestError(f"n is {params.n}; it must be from 1 to {self._config.max_num_sequences}", "n")

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        blocks = self._scheduler.blocks
        return dataclasses.replace(
            self._stats,
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting),
            num_blocks=blocks.num_blocks,
            num_blocks_in_use=blocks.num_blocks - blocks.num_available,
        )

    def _request(self, prompt: Many[int], params: SamplingParams, drafts: Many[Many[int]]) -> Request:
        """Raises RequestError, EngineError."""
        if self._num_open >= self._config.max_num_waiting + self._config.max_num_sequences:
            raise EngineOverloadedError(f"{self._num_open} requests are open already; try again later")
        self.check(prompt, params)
        seed = random.getrandbits(62) if params.seed is None else params.seed
        sequences = [
            Sequence(
                next(self._ids), list(prompt), params, seed + index, params.make_constraint and params.make_constraint()
            )
            for index in range(params.n)
        ]
        return Request(sequences, drafts, asyncio.get_running_loop())

    def _work(self) -> None:
        kind: type[EngineError] = EngineClosedError
        message = "the engine is shutting down"
        try:
            while self._receive():
                if self._scheduler.has_work:
                    self._step()
        except Exception as cause:  # our own mistake: nobody may be left waiting for a thread that is gone
            _log.exception("the engine has stopped")
            kind, message = EngineError, f"the engine has stopped: {type(cause).__name__}"
        with self._gate:
            self._is_closed = True
        while not self._inbox.empty():
            if isinstance(item := self._inbox.get(), Request):
                self._requests |= dict.fromkeys(item.sequences, item)
        self._outputs += [(request, kind(message)) for request in set(self._requests.values())]
        self._send()

    def _receive(self) -> bool:
        """Take what is in the inbox, waiting for it if there is nothing else to do; False when the engine is closed."""
        while not (self._scheduler.has_work and self._inbox.empty()):
            if not self._scheduler.has_work:
                self._send()
            match self._inbox.get():
                case None:
                    return False
                case _Cancel(request):
                    self._drop(request)
                case request:
                    self._requests |= dict.fromkeys(request.sequences, request)
                    self._scheduler.add(request.sequences[0])
        return True

    def _step(self) -> None:
        """One forward pass; a failure ends the sequences that were in it and no others."""
        self._propose()
        step = self._scheduler.schedule()
        forks = {
            item.sequence: request.sequences[1:]
            for item in step.scheduled
            if item.is_sampled
            and not (request := self._requests[item.sequence]).is_forked
            and len(request.sequences) > 1
        }
        try:
            results = self._runner.run(step, forks, self._send)
        except Exception as error:
            _log.exception("a step failed")
            failed = {self._requests[item.sequence] for item in step.scheduled}
            self._outputs += [(request, EngineError(f"the model failed: {error!r}")) for request in failed]
            for request in failed:
                self._drop(request)
            return
        self._count(step, results)
        for sequence in forks:  # now, as the first of them may end with this step
            self._requests[sequence].is_forked = True
        for item in step.scheduled:
            sequence, chosen = item.sequence, results[item.sequence]
            if item.draft:
                self._drafters[sequence].note(len(item.draft), len(chosen) - 1)
            tokens, reason = self._cut(sequence, chosen)
            self._scheduler.update(item, tokens)
            for fork in forks.get(sequence, ()):
                self._scheduler.fork(sequence, fork)
            if chosen:
                self._finish(sequence, tokens, chosen, reason)
            for fork in forks.get(sequence, ()):
                tokens, reason = self._cut(fork, results[fork])
                fork.tokens += tokens
                self._finish(fork, tokens, results[fork], reason)

    def _send(self) -> None:
        """Hand the callers what they have not had yet."""
        outputs, self._outputs = self._outputs, []
        send(outputs)

    def _count(self, step: Step, results: Mapping[Sequence, Many[Sampled]]) -> None:
        """Keep the figures for monitoring, before the sequences take their new tokens."""
        stats = self._stats
        stats.steps_total += 1
        stats.preemptions_total += len(step.preempted)
        stats.output_tokens_total += sum(len(chosen) for chosen in results.values())
        for item in step.scheduled:
            sequence = item.sequence
            if item.draft:
                stats.draft_tokens_total += len(item.draft)
                stats.accepted_tokens_total += len(results[sequence]) - 1
            if sequence.num_preemptions == 0 and sequence.num_computed_tokens == sequence.num_cached_tokens:
                stats.prompt_tokens_total += sequence.num_prompt_tokens
                stats.cached_tokens_total += sequence.num_cached_tokens

    def _propose(self) -> None:
        """Drafts for sequences that decode, shorter ones the more of them there are."""
        decoding = [sequence for sequence in self._scheduler.running if sequence.is_decoding]
        if not decoding:
            return
        limit = min(self._config.max_num_draft_tokens, self._max_num_drafting_tokens // len(decoding) - 1)
        for sequence in decoding:
            room = self._budget(sequence) - sequence.num_output_tokens - 1
            if min(limit, room) > 0:
                drafter = self._drafters.get(sequence)
                if drafter is None:
                    drafter = self._drafters[sequence] = self._drafter(sequence)
                sequence.draft = drafter.propose(sequence.tokens, min(limit, room))

    def _drafter(self, sequence: Sequence) -> Drafter:
        """Copying costs next to nothing, so it goes before the draft model."""
        lookup = PromptLookup(self._requests[sequence].drafts)
        if self._draft_model is None:
            return lookup
        num_prompt_tokens = sequence.num_prompt_tokens
        model = ModelDrafter(self._draft_model, sequence.params, sequence.seed, num_prompt_tokens)
        return FirstOf([lookup, model])

    def _cut(self, sequence: Sequence, chosen: list[Sampled]) -> tuple[list[int], FinishReason | None]:
        """The new tokens that belong to the output, and why it ends with them, if it does."""
        params = sequence.params
        stops = params.stop_token_ids if params.ignore_end else params.stop_token_ids | self._end_token_ids
        room = self._budget(sequence) - sequence.num_output_tokens
        tokens: list[int] = []
        reason = None
        for item in chosen:
            if item.token in stops:
                reason = FinishReason.STOP
                break
            tokens.append(item.token)
            if len(tokens) == room:
                reason = FinishReason.LENGTH
                break
        if sequence.constraint is not None:
            sequence.constraint.advance(tokens)
        return tokens, reason

    def _budget(self, sequence: Sequence) -> int:
        """Output tokens that the sequence may have."""
        room = self._max_model_len - sequence.num_prompt_tokens
        return room if sequence.params.max_tokens is None else min(sequence.params.max_tokens, room)

    def _finish(
        self, sequence: Sequence, tokens: list[int], chosen: list[Sampled], reason: FinishReason | None
    ) -> None:
        """Note the output of a step; a sequence that ends gives up its blocks."""
        request = self._requests[sequence]
        logprobs: list[TokenLogprobs] = [item.logprobs for item in chosen[: len(tokens)] if item.logprobs is not None]
        index = request.sequences.index(sequence)
        if tokens:
            self._time(request, index, len(tokens))
        output = TokenOutput(tuple(tokens), reason, sequence.num_cached_tokens, index, tuple(logprobs))
        self._outputs.append((request, output))
        if reason is not None:
            self._forget(sequence)

    def _time(self, request: Request, index: int, num_tokens: int) -> None:
        """Note how long a continuation waited for its tokens."""
        now_s = time.monotonic()
        last_s = request.last_s.get(index)
        if last_s is not None:
            self._stats.itl.observe((now_s - last_s) / num_tokens, num_tokens)
        elif not request.last_s:
            self._stats.ttft.observe(now_s - request.asked_s)
        request.last_s[index] = now_s

    def _drop(self, request: Request) -> None:
        for sequence in request.sequences:
            if sequence in self._requests:
                self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        del self._requests[sequence]
        if drafter := self._drafters.pop(sequence, None):
            drafter.close()
