"""`sluice eval fidelity`."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from sluice.compressor import Mode
from sluice.eval.bootstrap import Ratio
from sluice.eval.errors import EvalError
from sluice.eval.fidelity.cases import Found, find_cases, random_at_equal_size, replayed
from sluice.eval.fidelity.run import FULL, Measured, measure
from sluice.eval.fidelity.scorers import ServerScorer, TextScorer, TransformersScorer
from sluice.eval.new_file import NewFile
from sluice.eval.policies import make_policy
from sluice.eval.progress import shown
from sluice.eval.replay import Options
from sluice.eval.runner import Selection

MIN_TABLE_WIDTH = 140
"""Columns where no terminal says how many there are."""


@click.command(short_help="Ask a model how well it expects the agent's real next message.")
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--mode", type=click.Choice([mode.value for mode in Mode]), default="balanced", show_default=True, help="Ours."
)
@click.option("--policy", "policies", multiple=True, default=("mask-0",), show_default=True, help="Beside it.")
@click.option("--url", help="A server that serves /v1/completions with echo and logprobs, e.g. vLLM.")
@click.option("--model", help="With --url: the model's name; else a folder or a hub name.  [default: the bundled one]")
@click.option("--api-key", envvar="SLUICE_EVAL_API_KEY", show_envvar=True, help="For that server.")
@click.option("--turns", type=click.IntRange(min=2), default=40, show_default=True, help="Turns to draw.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=64),
    default=6000,
    show_default=True,
    help="Of a full context, at 4 characters each.",
)
@click.option("--max-target-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Of a message.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first conversations.")
@click.option("--sample", type=click.IntRange(min=1), help="Only so many conversations, drawn from all.")
@click.option("--agent", help="Only conversations of this agent.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every draw.")
@click.option("--json", "json_file", type=NewFile(), help="Write all figures here.")
def fidelity(
    traces: tuple[Path, ...],
    mode: str,
    policies: tuple[str, ...],
    url: str | None,
    model: str | None,
    api_key: str | None,
    turns: int,
    max_tokens: int,
    max_target_tokens: int,
    limit: int | None,
    sample: int | None,
    agent: str | None,
    seed: int,
    json_file: Path | None,
) -> None:
    """Ask a model how well it expects the agent's real next message, under the full context and the forwarded one.

    Turns are drawn whose full context fits --max-tokens and from which something was dropped; those that do not fit the
    model's window are left out. Beside ours stand random deletion of as many tokens, and (mask-0) every tool result
    left out. The figure is the mean change of the negative log-likelihood of a token, in nats: 0 is as good as the full
    context, above 0 worse.
    """
    if url and not model:
        raise click.UsageError("--url needs --model: the name under which that server knows the model")
    selection, options = Selection(traces, agent, limit, sample, seed), Options(seed=seed)
    try:
        if next(selection.lines(), None) is None:  # before a model is loaded for it
            raise click.ClickException(selection.is_empty_because())
        result = asyncio.run(
            _run(selection, options, mode, policies, (url, model, api_key), (turns, max_tokens, max_target_tokens))
        )
    except EvalError as error:
        raise click.ClickException(str(error)) from None
    found, measured, probability = result
    _print(found, measured, probability)
    if json_file:
        json_file.write_text(json.dumps(_as_json(found, measured, probability), indent=1) + "\n")


async def _run(
    selection: Selection,
    options: Options,
    mode: str,
    policies: tuple[str, ...],
    server: tuple[str | None, str | None, str | None],
    sizes: tuple[int, int, int],
) -> tuple[Found, Measured, float]:
    judged, others = make_policy(mode), [make_policy(name) for name in policies]
    async with AsyncExitStack() as stack:
        url, model, api_key = server
        scorer: TextScorer = (
            await stack.enter_async_context(ServerScorer(url, model or "", api_key=api_key))
            if url
            else TransformersScorer(model)
        )
        turns, max_tokens, max_target_tokens = sizes
        progress = stack.enter_context(shown({"score": turns}))
        found = await find_cases(selection, judged, options, num_cases=turns, max_tokens=max_tokens, progress=progress)
        if not found.cases:
            raise click.ClickException(
                f"{found.num_fitting} turns fit {max_tokens} tokens, and {mode} changed none of them"
            )
        probability, random = await random_at_equal_size(found.cases, options)
        contexts = {
            FULL: [case.full for case in found.cases],
            mode: [case.forwarded for case in found.cases],
            "random at equal size": random,
        }
        for policy in others:
            contexts[policy.name] = await replayed(policy, found.cases, options)
        measured = await measure(
            found.cases,
            contexts,
            scorer,
            max_target_tokens=max_target_tokens,
            seed=options.seed,
            progress=progress,
        )
        return found, measured, probability


def _print(found: Found, measured: Measured, probability: float) -> None:
    cases = measured.cases
    num_traces = len({case.trace for case in cases})
    with_facts = sum(case.num_facts > 0 for case in cases)
    left_out = len(found.cases) - len(cases)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, MIN_TABLE_WIDTH)
    title = (
        f"{len(cases)} turns of {num_traces} conversations ({with_facts} that needed facts), drawn from "
        f"{found.num_changed} that were changed, of {found.num_fitting} that fit"
        f"{f', less {left_out} that do not fit the window of the model' if left_out else ''}; "
        "nats a token, with 95 % intervals"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("context", no_wrap=True)
    for name in ("size ×", "loss", "change", "change where facts are needed", "turns worse"):
        table.add_column(name, justify="right")
    for row in measured.rows:
        cells = (_interval(row.loss), _interval(row.change), _interval(row.change_with_facts))
        table.add_row(row.policy, f"{row.size:.3f}", *cells, f"{row.share_worse:.0%}")
    console.print(table)
    console.print(f"random deletion drops a line with probability {probability:.3f}")


def _as_json(found: Found, measured: Measured, probability: float) -> dict[str, object]:
    return {
        "num_fitting": found.num_fitting,
        "num_changed": found.num_changed,
        "num_left_out": len(found.cases) - len(measured.cases),
        "random_probability": probability,
        "turns": [
            {"trace": case.trace, "turn": case.place + 1, "num_facts": case.num_facts} for case in measured.cases
        ],
        "contexts": [asdict(row) for row in measured.rows],
    }


def _interval(value: Ratio | None) -> str:
    if value is None:
        return ""
    return f"{value.value:.4f}" if value.low == value.high else f"{value.value:.4f} ({value.low:.4f}–{value.high:.4f})"
