"""Plays the same conversations to several systems over HTTP and to the frames in process.

The systems take turns conversation by conversation, so that what slows this machine slows all of them. A request that
a system fails is counted and goes out untouched, as an agent's retry past it would.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sluice.eval.compare.system import System
from sluice.eval.data import parse_trace
from sluice.eval.metrics import Reader
from sluice.eval.policies.base import Request
from sluice.eval.policies.over_http import OverHttp
from sluice.eval.policies.untouched import Untouched
from sluice.eval.recorder import Recorder
from sluice.eval.replay import Options, Script, play
from sluice.eval.runner import Progress, Selection, TraceScores

WARM_UP = b'{"role":"user","content":"Hello"}'
DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Started:
    """How a system came up."""

    name: str
    start_s: float
    """Seconds from its start until it took requests; 0 where it ran already."""


async def play_systems(
    found: Sequence[TraceScores],
    selection: Selection,
    systems: Sequence[System],
    options: Options,
    progress: Progress,
    *,
    is_streamed: bool = False,
) -> list[Started]:
    """Play the selected conversations to each system; the scores join those in `found`, by the systems' names.

    Requests are also sent straight to the recorder: what that takes is noted as the round trip of `untouched`.

    Raises:
        ReplayError: a system did not start.
        TraceError: a conversation cannot be read.
    """
    async with AsyncExitStack() as stack:
        policies, started = [], []
        direct = await stack.enter_async_context(Recorder())
        policies.append(
            await stack.enter_async_context(OverHttp(direct.url, direct, name=DIRECT, is_streamed=is_streamed))
        )
        for system in systems:
            policy, start_s = await _open(stack, system, is_streamed=is_streamed)
            policies.append(policy)
            started.append(Started(system.name, start_s))
        for num_done, (trace, line) in enumerate(zip(found, selection.lines(), strict=True), 1):
            script = Script.of(parse_trace(line), options)
            reader = Reader(script.trace)
            for policy in policies:
                trace.scores[policy.name] = await play(script, policy, options, reader)
            trace.scores[Untouched.name].round_trip_ms = trace.scores.pop(DIRECT).round_trip_ms
            progress("over HTTP", num_done)
        return started


async def _open(stack: AsyncExitStack, system: System, *, is_streamed: bool) -> tuple[OverHttp, float]:
    recorder = await stack.enter_async_context(Recorder(port=system.recorder_port))
    process = system.process(recorder.url)
    if process is not None:
        await stack.enter_async_context(process)
    policy = OverHttp(
        process.url if process else system.url,
        recorder,
        name=system.name,
        headers=system.headers,
        model=system.model,
        is_streamed=is_streamed,
        process=process,
        is_lenient=True,
    )
    await stack.enter_async_context(policy)
    for _ in range(system.warm_up):
        await policy.forward(Request((0,), [WARM_UP], 0.0))
    return policy, process.start_s if process else 0.0
