"""Replays many conversations over a pool of processes and gathers the scores.

Files are streamed: only a few conversations are held at a time. Knows no display; it reports progress to a callback.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path

from sluice.compressor import Mode
from sluice.eval.cost import PRICES
from sluice.eval.data import TraceLine, agent_of, parse_trace
from sluice.eval.equal_cost import Draws, droppable, equal_probability
from sluice.eval.errors import PolicyError
from sluice.eval.metrics import Reader, Score
from sluice.eval.policies import Policy, is_equal_cost, make_policy
from sluice.eval.policies.untouched import Untouched
from sluice.eval.readers import read_conversations
from sluice.eval.replay import Options, Script, play
from sluice.eval.unchanged import Unchanged
from sluice.proxy.parent import end_with_parent

Progress = Callable[[str, int], None]
"""Called with a phase's name and the number of its conversations that are done."""


@dataclass(slots=True)
class TraceScores:
    """What came of one conversation."""

    id: str
    agent: str
    source: str
    scores: dict[str, Score]
    """By policy; `untouched` is always among them."""
    draws: dict[str, Draws] = field(default_factory=dict)
    """By equal-cost frame: what it could drop."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which conversations are replayed."""

    paths: tuple[Path, ...]
    agent: str | None = None
    limit: int | None = None
    """Only the first so many."""
    sample: int | None = None
    """Only so many, drawn from all; in their order."""
    seed: int = 0
    _unchanged: Unchanged = field(default_factory=Unchanged, init=False, repr=False, compare=False)

    def lines(self) -> Iterator[TraceLine]:
        """Stream them: once more on each call.

        Raises:
            TraceError: a file or a line cannot be read, or is no longer what it was on an earlier call.
        """
        if self.sample is None:
            yield from self._all()
            return
        num_all = sum(1 for _ in self._all())
        drawn = random.Random(self.seed).sample(range(num_all), min(self.sample, num_all))  # noqa: S311 (no secret)
        chosen = set(drawn)
        yield from (line for number, line in enumerate(self._all()) if number in chosen)

    def is_empty_because(self) -> str:
        """Why there are none, where there are none."""
        paths = ", ".join(map(str, self.paths))
        agents = {agent_of(line) for line in read_conversations(*self.paths)}
        if not agents:
            return f"no conversation in {paths}"
        return f"no conversation of agent {self.agent!r} in {paths}; there are {', '.join(sorted(map(str, agents)))}"

    def _all(self) -> Iterator[TraceLine]:
        return self._unchanged(self._selected())

    def _selected(self) -> Iterator[TraceLine]:
        num_taken = 0
        for line in read_conversations(*self.paths):
            if num_taken == self.limit:
                return
            # One that names none is passed on: who reads it says what is wrong.
            if self.agent is None or agent_of(line) in (None, self.agent):
                num_taken += 1
                yield line


def replay_all(
    selection: Selection, names: Sequence[str], options: Options, *, num_jobs: int, ours: str, progress: Progress
) -> list[TraceScores]:
    """Replay the selected conversations to every policy in process, in the order of the files.

    Args:
        selection: which conversations.
        names: of the policies.
        options: how they are replayed.
        num_jobs: processes; 1 stays in this one.
        ours: name of the policy that equal-cost frames must equal.
        progress: see `Progress`.

    Raises:
        TraceError: a conversation cannot be read.
        PolicyError: a policy is not known, or needs ours beside it.
    """
    for name in names if ours not in names else ():  # a bad name is reported before any work is done
        if is_equal_cost(name):
            others = "; --mode names another one" if any(each in list(Mode) for each in names) else ""
            raise PolicyError(
                f"policy {name!r} needs one of ours beside it, whose cost it is to equal: {ours!r}{others}"
            )
        make_policy(name)
    found = replay_frames(selection, names, options, num_jobs=num_jobs, progress=progress)
    replay_equal_cost(found, selection, names, options, num_jobs=num_jobs, ours=ours, progress=progress)
    return found


def replay_frames(
    selection: Selection, names: Sequence[str], options: Options, *, num_jobs: int, progress: Progress
) -> list[TraceScores]:
    """Replay to every policy but those at equal cost, for which it is noted what they could drop.

    Raises:
        TraceError: a conversation cannot be read.
        PolicyError: a policy is not known.
    """
    equal = tuple(name for name in names if is_equal_cost(name))
    first = tuple(dict.fromkeys([Untouched.name, *(name for name in names if name not in equal)]))
    for name in first:
        make_policy(name)
    return _pass("replay", selection, _Task((), first, equal, options), num_jobs, progress)


def replay_equal_cost(
    found: Sequence[TraceScores],
    selection: Selection,
    names: Sequence[str],
    options: Options,
    *,
    num_jobs: int,
    ours: str,
    progress: Progress,
) -> None:
    """Replay to the policies at equal cost, once there are scores of `ours`; theirs join what was found."""
    equal = tuple(name for name in names if is_equal_cost(name))
    if not equal or not found:
        return
    prices = PRICES[options.prices]
    saving = sum(t.scores[Untouched.name].usage.cost(prices) - t.scores[ours].usage.cost(prices) for t in found)
    probabilities = tuple(
        (name, equal_probability([each.draws[name] for each in found], saving=saving) if saving > 0 else 0.0)
        for name in equal
    )
    more = _pass("equal cost", selection, _Task(probabilities, equal, (), options), num_jobs, progress)
    for trace, also in zip(found, more, strict=True):
        trace.scores |= also.scores
        trace.draws.clear()


@dataclass(frozen=True, slots=True)
class _Task:
    probabilities: tuple[tuple[str, float], ...]
    names: tuple[str, ...]
    droppable: tuple[str, ...]
    options: Options

    def __call__(self, line: TraceLine) -> TraceScores:
        trace = parse_trace(line)
        script, reader = Script.of(trace, self.options), Reader(trace)
        known = dict(self.probabilities)
        policies = [self._policy(name, known.get(name)) for name in self.names]
        scores = {policy.name: asyncio.run(play(script, policy, self.options, reader)) for policy in policies}
        draws = {name: droppable(script, self.options, whole=name.startswith("whole")) for name in self.droppable}
        return TraceScores(trace.id, trace.agent, trace.source, scores, draws)

    def _policy(self, name: str, probability: float | None) -> Policy:
        return make_policy(name, equal_probability=probability, provider=self.options.prices)


def _pass(phase: str, selection: Selection, task: _Task, num_jobs: int, progress: Progress) -> list[TraceScores]:
    found = []
    for item in _mapped(task, selection.lines(), num_jobs):
        found.append(item)
        progress(phase, len(found))
    return [scores for _, scores in sorted(found, key=lambda item: item[0])]


def _mapped(task: _Task, lines: Iterable[TraceLine], num_jobs: int) -> Iterator[tuple[int, TraceScores]]:
    """Each conversation's place and scores, as they are done."""
    if num_jobs == 1:
        for place, line in enumerate(lines):
            yield place, task(line)
        return
    # spawn, not fork: the display's thread may hold a lock at that moment
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_jobs, mp_context=context, initializer=end_with_parent) as pool:
        running: dict[Future[TraceScores], int] = {}
        try:
            for place, line in enumerate(lines):
                with _interrupts_put_off():  # each worker would say where it was interrupted
                    running[pool.submit(task, line)] = place
                if len(running) >= 2 * num_jobs:
                    yield from _finished(running)
            while running:
                yield from _finished(running)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


@contextmanager
def _interrupts_put_off() -> Iterator[None]:
    """What is started meanwhile never hears of interrupts; this process hears of them at the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Its first start would let interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _interrupts_noted():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_noted() -> Iterator[None]:
    """Put off those that another thread takes: the mask is this thread's alone, and Python's handler runs in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)  # comes once the mask is lifted


def _finished(running: dict[Future[TraceScores], int]) -> Iterator[tuple[int, TraceScores]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()
