"""Replays scorers at several prices: `python -m sluice.eval.scorer.frontier TRACES --price A/E …`.

What `sluice eval replay --mode balanced` does, for scorers that are not shipped and for other prices than those that
are set. Writes each conversation's sums, so that scorers can be compared at equal cost (`at_equal_cost.py`).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from sluice.backend.errors import BackendError
from sluice.compressor import CompressorSettings, Mode
from sluice.compressor.errors import CompressorError
from sluice.compressor.scoring import Scorer, load_default
from sluice.compressor.scoring.feature_scorer import FeatureScorer
from sluice.compressor.scoring.forest import read_forest
from sluice.compressor.settings import Prices
from sluice.eval.cost import PRICES
from sluice.eval.data import TraceLine, agent_of, parse_trace, read_lines
from sluice.eval.metrics import Reader
from sluice.eval.new_file import NewFile
from sluice.eval.policies.base import Policy
from sluice.eval.policies.ours import Ours
from sluice.eval.policies.untouched import Untouched
from sluice.eval.replay import Options, Script, play


def sums(line: TraceLine, policies: Sequence[Ours], options: Options) -> dict[str, Any]:
    """What one conversation costs and keeps under each policy, as JSON values."""
    trace = parse_trace(line)
    script, reader = Script.of(trace, options), Reader(trace)
    found: dict[str, Any] = {}
    everything: list[Policy] = [Untouched(), *policies]
    for policy in everything:
        score = asyncio.run(play(script, policy, options, reader))
        cost = score.usage.cost(PRICES[options.prices])
        found[policy.name] = {"cost": cost, "words": score.words, "lines": score.lines, "places": score.places}
    return {"id": trace.id, "agent": trace.agent, "source": trace.source, "policies": found}


def read_prices(texts: Sequence[str]) -> list[Prices]:
    """`A/E`: prices at arrival and at an epoch.

    Raises:
        click.BadParameter: a text is something else.
    """
    found = []
    for text in texts:
        try:
            arrival, epoch = (float(part) for part in text.split("/"))
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not of the form ARRIVAL/EPOCH") from error
        found.append(Prices(arrival, epoch))
    return found


def policies_of(scorers: Mapping[str, Scorer], prices: Sequence[Prices]) -> list[Ours]:
    """Mode `balanced` with every scorer at every price."""
    return [
        Ours(
            Mode.BALANCED,
            "anthropic",
            f"{name} {price.arrival:g}/{price.epoch:g}",
            replace(CompressorSettings(), balanced=price),
            scorer,
        )
        for name, scorer in scorers.items()
        for price in prices
    ]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process needs to replay."""

    features: Path | None
    """Trees over features alone; None: those that are shipped."""
    model: Path | None
    """A folder with a last layer; None: features alone are judged."""
    logits: tuple[tuple[Path, str, Path], ...]
    """See `combined_scorer`."""
    prices: tuple[Prices, ...]
    options: Options
    base: str | None = None
    """Whose tokenizer makes the windows; None: the one that the corpora name."""
    only: str | None = None
    """`features` or `combined`, where not both are judged."""

    def policies(self) -> list[Ours]:
        """Every scorer at every price."""
        scorers: dict[str, Scorer] = {"features": _features(self.features)}
        if self.model is not None:
            from sluice.eval.scorer.combined import combined_scorer  # networks need the extra `scorer`

            scorers["combined"] = combined_scorer(self.model, self.logits, self.base)
        wanted = {name: scorer for name, scorer in scorers.items() if self.only in (None, name)}
        return policies_of(wanted, self.prices)


class _Replayer:
    """One process's policies, made when the process begins."""

    policies: Sequence[Ours] = ()
    options = Options()

    @classmethod
    def begin(cls, setup: Setup) -> None:
        cls.policies, cls.options = setup.policies(), setup.options

    @classmethod
    def sums(cls, line: TraceLine) -> dict[str, Any]:
        return sums(line, cls.policies, cls.options)


def _features(file: Path | None) -> Scorer:
    if file is None:
        return load_default()
    return FeatureScorer(read_forest(file)[0])


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--features", type=click.Path(path_type=Path, exists=True), help="Other trees than those shipped.")
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="A folder with a last layer.")
@click.option("--logits", type=(click.Path(path_type=Path), str, click.Path(path_type=Path)), multiple=True)
@click.option("--price", "prices", multiple=True, required=True, metavar="ARRIVAL/EPOCH")
@click.option("--base", help="Name or folder of the network's base; default: what the corpora name.")
@click.option("--only", type=click.Choice(["features", "combined"]), help="Only this one of both.")
@click.option("--cold", is_flag=True, help="The provider's cache expires on some turns.")
@click.option("--agent", help="Only conversations of this agent.")
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Only one in so many conversations."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--out", required=True, type=NewFile(), help="JSON lines.")
def frontier(
    traces: Sequence[Path],
    features: Path | None,
    model: Path | None,
    logits: Sequence[tuple[Path, str, Path]],
    prices: Sequence[str],
    base: str | None,
    only: str | None,
    cold: bool,
    agent: str | None,
    every: int,
    jobs: int,
    out: Path,
) -> None:
    """Replay features, and a network's scores with them, at several prices.

    --logits names a run's file, the part of it (`train` for what the run left out, `look_at` for what it only looked
    at), and the corpora that were scored (a file, or a pattern of files in their order).
    """
    setup = Setup(features, model, tuple(logits), tuple(read_prices(prices)), Options(is_cold=cold), base, only)
    try:
        setup.policies()  # a process of the pool that cannot make them would be begun anew without end
    except (ValueError, OSError, CompressorError, BackendError) as error:
        raise click.ClickException(str(error)) from None
    every_line = (line for path in traces for line in read_lines(path) if agent in (None, agent_of(line)))
    lines = (line for number, line in enumerate(every_line) if number % every == 0)
    num_done = 0
    with out.open("w") as file, multiprocessing.get_context("spawn").Pool(jobs, _Replayer.begin, (setup,)) as pool:
        for found in pool.imap_unordered(_Replayer.sums, lines):
            file.write(json.dumps(found) + "\n")
            file.flush()
            num_done += 1
    click.echo(f"{out}: {num_done} conversations")


if __name__ == "__main__":
    frontier()
