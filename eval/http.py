"""Replays conversations over HTTP: to a proxy that it starts itself, or to one that runs already.

One conversation after the other, each turn after the one before, as an agent works. What reached the recorder is
compared with what the compressor makes of the same requests in process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sluice.eval.child import ProxyProcess
from sluice.eval.data import parse_trace
from sluice.eval.metrics import Reader
from sluice.eval.policies.over_http import OverHttp
from sluice.eval.recorder import Recorder
from sluice.eval.replay import Options, Script, play
from sluice.eval.runner import Progress, Selection, TraceScores


@dataclass(frozen=True, slots=True)
class Target:
    """The proxy that is judged."""

    mode: str
    """Asked for in a header."""
    url: str | None = None
    """Of a proxy that runs already; None starts one."""
    recorder_port: int = 0
    """Where the recorder listens: the port to which a proxy that runs already forwards."""
    serve_arguments: tuple[str, ...] = ()
    """More flags for the proxy that is started."""
    restart_every: int | None = None
    """Kill and restart the proxy that is started after so many turns."""
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """On how many turns the same messages were forwarded over HTTP as in process."""

    num_turns: int
    num_same: int
    num_restarts: int
    first_difference: str | None
    """Conversation and turn."""


async def replay_over_http(
    found: Sequence[TraceScores], selection: Selection, options: Options, target: Target, progress: Progress
) -> Agreement:
    """Replay the selected conversations over HTTP; the scores join those found in process, as `<mode> over HTTP`.

    Returns:
        How far they agree with the mode's scores in process.

    Raises:
        ReplayError: the proxy did not start, or failed on a turn.
        TraceError: a conversation cannot be read.
    """
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(Recorder(port=target.recorder_port))
        process = None
        if target.url is None:
            upstream = ("--upstream", recorder.url, "--provider", options.prices)
            arguments = (*upstream, "--log-level", "warning", *target.serve_arguments)
            process = await stack.enter_async_context(ProxyProcess(arguments))
        policy = await stack.enter_async_context(
            OverHttp(
                process.url if process else target.url or "",
                recorder,
                name=f"{target.mode} over HTTP",
                headers={"x-sluice-mode": target.mode},
                is_streamed=target.is_streamed,
                process=process,
                restart_every=target.restart_every,
            )
        )
        for num_done, (trace, line) in enumerate(zip(found, selection.lines(), strict=True), 1):
            script = Script.of(parse_trace(line), options)
            trace.scores[policy.name] = await play(script, policy, options, Reader(script.trace))
            progress(policy.name, num_done)
        return _agreement(found, policy.name, target.mode, policy.num_restarts)


def _agreement(found: Sequence[TraceScores], over_http: str, in_process: str, num_restarts: int) -> Agreement:
    num_turns, num_same, first = 0, 0, None
    for trace in found:
        pairs = zip(trace.scores[over_http].digests, trace.scores[in_process].digests, strict=True)
        for number, (ours, theirs) in enumerate(pairs, 1):
            num_turns += 1
            num_same += ours == theirs
            if ours != theirs and first is None:
                first = f"{trace.id}, turn {number}"
    return Agreement(num_turns, num_same, num_restarts, first)
