"""`sluice demo`: the bundled model, the proxy before it, and one conversation played through both; then it serves.

What was forwarded is learned where it arrives: a recording hop stands between proxy and model (`Recorder`, relaying),
so costs and facts come from the bytes that the model was sent; token counts and overhead are the proxy's own headers.
The recorded assistant messages go on; what the small model answers is dropped. Ends all that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from statistics import median

import click
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sluice.backend.errors import BackendError
from sluice.backend.process import EngineProcess
from sluice.backend.weights import DEFAULT_MODEL
from sluice.eval.child import ProxyProcess
from sluice.eval.cost import PRICES
from sluice.eval.data import read_traces
from sluice.eval.ended_by_signals import ended_by_signals
from sluice.eval.errors import EvalError, ReplayError
from sluice.eval.metrics import Score
from sluice.eval.policies import Conversation, Forwarded, Hindsight, Request
from sluice.eval.policies.over_http import OverHttp
from sluice.eval.policies.untouched import Untouched
from sluice.eval.recorder import Recorder
from sluice.eval.replay import Options, Script, play
from sluice.eval.traces import trace_file

AGENT = "claude-code"
"""Whose conversation is played."""
MODE = "safe"
INTERRUPTED_STATUS = 1
HELLO = b'{"role": "user", "content": "Hello"}'
MAX_WARM_UPS = 20


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8790, show_default=True, help="Where the proxy listens.")
@click.option("--max-turns", type=click.IntRange(min=1), help="Only the conversation's first turns.")
@click.option("--once", is_flag=True, help="End after the table.")
def demo(port: int, max_turns: int | None, once: bool) -> None:
    """Play a conversation through the proxy to the bundled model, then go on serving."""
    try:
        has_played = asyncio.run(_demo(port, Options(max_turns=max_turns), once, Console(stderr=True, highlight=False)))
    except (EvalError, BackendError) as error:
        raise click.ClickException(str(error)) from None
    if not has_played:
        raise click.exceptions.Exit(INTERRUPTED_STATUS)


async def _demo(port: int, options: Options, once: bool, show: Console) -> bool:
    """Run it all; returns whether the conversation was played to its end."""
    has_played = False
    with ended_by_signals(), contextlib.suppress(asyncio.CancelledError):
        _require_free(port)
        async with AsyncExitStack() as stack:
            stack.callback(show.print, "ended all that was started")
            engine = await _start_engine(stack, show)
            recorder = await stack.enter_async_context(Recorder(relay_to=engine.base_url))
            arguments = ("--upstream", recorder.url, "--mode", MODE, "--log-level", "warning")
            proxy = await stack.enter_async_context(ProxyProcess(arguments, port=port))
            show.print(f"the proxy listens on {proxy.url} and forwards to {DEFAULT_MODEL}")
            Console(highlight=False).print(await _play(proxy, recorder, options, show))
            has_played = True
            if not once:
                recorder.stop_recording()
                show.print(_hint(proxy.url), soft_wrap=True)
                await _until_one_ends(engine, proxy)
    return has_played


async def _start_engine(stack: AsyncExitStack, show: Console) -> EngineProcess:
    with show.status("starting the bundled model") as status:

        def report(line: str) -> None:
            last = escape(line.rpartition("\r")[2])  # a bar that redraws itself comes as one line
            if show.is_terminal:
                status.update(f"starting the bundled model: {last}")
            else:
                show.print(last)

        engine = EngineProcess(on_progress=report)
        stack.push_async_callback(engine.stop)
        await engine.start()
    return engine


async def _play(proxy: ProxyProcess, recorder: Recorder, options: Options, show: Console) -> Group:
    script = Script.of(next(read_traces(trace_file(AGENT))), options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    headers = {"x-sluice-mode": MODE}
    over_http = OverHttp(proxy.url, recorder, name=MODE, headers=headers, model=DEFAULT_MODEL, process=proxy)
    with Progress(*columns, console=show) as bar:
        task = bar.add_task("playing a conversation", total=len(script.turns))
        async with over_http:
            await _warm_up(over_http)
            watched = _Watched(over_http, lambda: bar.advance(task))
            ours = await play(script, watched, options)
    return summary(watched.turns, ours, await play(script, Untouched(), options), prices=options.prices)


async def _warm_up(policy: OverHttp) -> None:
    """Say hello until the proxy counts tokens: the first request of a process loads what later ones find loaded."""
    for _ in range(MAX_WARM_UPS):
        if (await policy.forward(Request((0,), [HELLO], 0.0))).num_tokens:
            return


class _Watched:
    """A policy whose turns are kept and reported as they are done."""

    def __init__(self, policy: OverHttp, report: Callable[[], None]) -> None:
        self.name = policy.name
        self.turns: list[Forwarded] = []
        self._policy = policy
        self._report = report

    def open(self, hindsight: Hindsight) -> Conversation:
        self._policy.open(hindsight)
        return self

    async def forward(self, request: Request) -> Forwarded:
        forwarded = await self._policy.forward(request)
        self.turns.append(forwarded)
        self._report()
        return forwarded


def summary(turns: list[Forwarded], ours: Score, untouched: Score, *, prices: str) -> Group:
    """Lay out what each turn and the whole conversation came to.

    Args:
        turns: as they were forwarded.
        ours: of the bytes that the model was sent.
        untouched: of the same requests, had nothing been dropped.
        prices: a key of `PRICES`.
    """
    table = Table(title=f"{len(turns)} turns, mode {MODE}", title_justify="left", show_footer=True)
    counts = [turn.num_tokens for turn in turns if turn.num_tokens is not None]
    came, went = sum(count[0] for count in counts), sum(count[1] for count in counts)
    times = [turn.overhead_ms for turn in turns if turn.overhead_ms is not None]
    table.add_column("turn", "all", justify="right")
    table.add_column("tokens in", f"{came:,}", justify="right")
    table.add_column("tokens forwarded", f"{went:,}", justify="right")
    table.add_column("less", _less(came, went), justify="right")
    table.add_column("overhead (median)", f"{median(times):.1f} ms" if times else "", justify="right")
    for number, turn in enumerate(turns, 1):
        count, overhead = turn.num_tokens, turn.overhead_ms
        table.add_row(
            str(number),
            *((f"{count[0]:,}", f"{count[1]:,}", _less(*count)) if count else ("", "", "")),
            f"{overhead:.1f} ms" if overhead is not None else "",
        )
    kept, needed = (ours.words[side] + ours.lines[side] for side in (0, 1))
    cost = ours.usage.cost(PRICES[prices]) / untouched.usage.cost(PRICES[prices])
    return Group(
        table,
        f"billed input, {prices} prices: ×{cost:.2f} of untouched\n"
        f"facts that the agent needed later and still found: {kept} of {needed}\n"
        f"turns that rewrote what had been sent: {ours.num_rewrites}",
    )


def _less(came: int, went: int) -> str:
    return f"{(came - went) / came:.0%}" if came > went else ""


def _hint(url: str) -> str:
    return (
        f"\nserving on {url} until Ctrl-C; point an agent at it:\n"
        f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=any OPENAI_MODEL={DEFAULT_MODEL}\n"
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{DEFAULT_MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'\n'
        "before a provider of yours: sluice serve --upstream https://api.openai.com\n"
    )


async def _until_one_ends(engine: EngineProcess, proxy: ProxyProcess) -> None:
    """Wait for ever; raises ReplayError once the model or the proxy has ended by itself."""
    waiting = {asyncio.create_task(engine.wait()): "model", asyncio.create_task(proxy.wait()): "proxy"}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    ended = waiting[done.pop()]
    raise ReplayError(f"the {ended} ended:\n{engine.log_tail if ended == 'model' else proxy.log_tail()}")


def _require_free(port: int) -> None:
    """Raise ReplayError if the port is taken: better now than after the model has been loaded."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ReplayError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}; choose another --port") from None
