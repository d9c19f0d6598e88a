"""Steps the model for one engine's requests: proposes, schedules, computes, hands out what came of it.

All of it belongs to the engine's thread. What a step brings is sent while the next one is computed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from sluice.backend.base import EngineStats, FinishReason, TokenOutput
from sluice.backend.embedded.request import Request, send
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.embedded.sampler import Sampled
from sluice.backend.embedded.scheduler import Scheduler, Step
from sluice.backend.embedded.sequence import Sequence
from sluice.backend.embedded.speculation import Drafting
from sluice.backend.errors import BackendError, EngineError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Brought:
    """What a step brought for one continuation."""

    request: Request
    sequence: Sequence
    tokens: list[int]
    chosen: Many[Sampled]
    """The tokens, and perhaps more that do not belong to the output."""
    reason: FinishReason | None


class Worker:
    """What is open in one engine, and the steps that bring it on."""

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, drafting: Drafting, stats: EngineStats) -> None:
        """`stats` is kept up to date."""
        self._runner = runner
        self._scheduler = scheduler
        self._drafting = drafting
        self._stats = stats
        self._requests: dict[Sequence, Request] = {}
        self._brought: list[_Brought] = []
        """Not sent yet, like what follows."""
        self._failed: list[tuple[Request, BackendError]] = []

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return self._scheduler.has_work

    def add(self, request: Request) -> None:
        """Let a request wait for its turn."""
        self._requests |= dict.fromkeys(request.sequences, request)
        self._scheduler.add(request.sequences[0])

    def drop(self, request: Request) -> None:
        """End a request, whose blocks are free at once. No error if it has ended."""
        for sequence in request.sequences:
            if sequence in self._requests:
                self._forget(sequence)

    def fail(self, error: EngineError) -> None:
        """Tell all requests that nothing more will come."""
        self._failed += [(request, error) for request in set(self._requests.values())]
        self.send()

    def send(self) -> None:
        """Hand the callers what they have not had yet."""
        outputs: list[tuple[Request, TokenOutput | Exception]] = []
        outputs += [(brought.request, self._output(brought)) for brought in self._brought]
        outputs += self._failed
        self._brought, self._failed = [], []
        send(outputs)

    def step(self) -> None:
        """One forward pass; a failure ends the requests that were in it and no others, a constraint's its request.

        Raises torch.AcceleratorError where the device is lost.
        """
        # Not before the first token: continuations that fork there must not share what one of them was drafted.
        self._draft([one for one in self._scheduler.running if one.is_decoding and one.num_output_tokens])
        step = self._scheduler.schedule()
        forks = {item.sequence: self._forks(item.sequence) for item in step.scheduled if item.is_sampled}
        try:
            results = self._runner.run(step, forks, self.send)
        except torch.AcceleratorError:  # the device computes nothing more for this process
            raise
        except Exception as error:
            _log.exception("a step failed")
            failed = {self._requests[item.sequence] for item in step.scheduled}
            self._failed += [(request, EngineError(f"the model failed: {error!r}")) for request in failed]
            self._drop_failed()
            return
        self._count(step, results)
        for item in step.scheduled:
            sequence, chosen = item.sequence, results[item.sequence]
            if item.draft:
                self._drafting.note(sequence, len(item.draft), len(chosen) - 1)
            tokens, reason = cut(sequence, chosen)
            self._scheduler.update(item, tokens)
            for fork in forks.get(sequence, ()):  # first, as the sequence may end with this step
                self._scheduler.fork(sequence, fork)
            if chosen:
                self._put_out(sequence, tokens, chosen, reason)
            for fork in forks.get(sequence, ()):
                tokens, reason = cut(fork, results[fork])
                fork.tokens += tokens
                self._put_out(fork, tokens, results[fork], reason)
        self._drop_failed()

    def _draft(self, begun: Many[Sequence]) -> None:
        """Give each its draft; none where that fails, as a step needs none. Raises torch.AcceleratorError."""
        try:
            self._drafting.propose(begun)
        except torch.AcceleratorError:
            raise
        except Exception:
            _log.exception("drafting failed")
            for sequence in begun:
                sequence.draft = ()

    def _forks(self, sequence: Sequence) -> list[Sequence]:
        """Continuations that begin when the prompt that they share is through."""
        request = self._requests[sequence]
        if request.is_forked:
            return []
        request.is_forked = True
        return request.sequences[1:]

    def _count(self, step: Step, results: Mapping[Sequence, Many[Sampled]]) -> None:
        """Keep the figures for monitoring."""
        stats = self._stats
        stats.steps_total += 1
        stats.preemptions_total += len(step.preempted)
        stats.output_tokens_total += sum(len(chosen) for chosen in results.values())
        for item in step.scheduled:
            if item.draft:
                stats.draft_tokens_total += len(item.draft)
                stats.accepted_tokens_total += len(results[item.sequence]) - 1
        for sequence in step.admitted:
            stats.prompt_tokens_total += sequence.num_prompt_tokens
            stats.cached_tokens_total += sequence.num_cached_tokens

    def _put_out(
        self, sequence: Sequence, tokens: list[int], chosen: Many[Sampled], reason: FinishReason | None
    ) -> None:
        """Note what a step brought; a sequence that ends gives up its blocks."""
        request = self._requests[sequence]
        if sequence.constraint is not None and (failure := sequence.constraint.failure) is not None:
            self._failed.append((request, failure))
            return
        self._brought.append(_Brought(request, sequence, tokens, chosen, reason))
        if reason is not None:
            self._forget(sequence)

    def _output(self, brought: _Brought) -> TokenOutput:
        """For the caller. Made while the next step is computed, as everything is that can wait."""
        sequence, tokens = brought.sequence, brought.tokens
        index = brought.request.sequences.index(sequence)
        if tokens:
            self._time(brought.request, index, len(tokens))
        logprobs = tuple(item.logprobs for item in brought.chosen[: len(tokens)] if item.logprobs is not None)
        return TokenOutput(tuple(tokens), brought.reason, sequence.num_cached_tokens, index, logprobs)

    def _time(self, request: Request, index: int, num_tokens: int) -> None:
        """Note how long a continuation waited for its tokens."""
        now_s = time.monotonic()
        last_s = request.last_s.get(index)
        if last_s is not None:
            self._stats.itl.observe((now_s - last_s) / num_tokens, num_tokens)
        elif not request.last_s:
            self._stats.ttft.observe(now_s - request.asked_s)
        request.last_s[index] = now_s

    def _drop_failed(self) -> None:
        """End the requests that have failed in this step."""
        for request, _ in self._failed:
            self.drop(request)

    def _forget(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        del self._requests[sequence]
        self._drafting.close(sequence)


def cut(sequence: Sequence, chosen: Many[Sampled]) -> tuple[list[int], FinishReason | None]:
    """The new tokens that belong to the output, and why it ends with them, if it does.

    The sequence's constraint takes note of them.
    """
    tokens: list[int] = []
    reason = None
    for item in chosen:
        if item.token in sequence.stop_token_ids:
            reason = FinishReason.STOP
            break
        tokens.append(item.token)
        if len(tokens) == sequence.num_tokens_left:
            reason = FinishReason.LENGTH
            break
    if sequence.constraint is not None:
        sequence.constraint.advance(tokens)
    return tokens, reason
