"""Trains the scorer that is shipped: `python -m sluice.eval.scorer.train TRACES… --out FILE`.

Reads recorded conversations, prints what the model does on agents and repositories it has not seen, then trains on
all of them. The same traces, options and library versions give the same trees.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

import click

from sluice.compressor.scoring.forest import Forest, write_forest
from sluice.eval.data import TraceLine, parse_trace, read_lines
from sluice.eval.new_file import NewFile
from sluice.eval.scorer.crossval import HeldOut, as_table, held_out, leave_one_out
from sluice.eval.scorer.data import Sampling, Source, balanced, concatenate, examples
from sluice.eval.scorer.trees import Growth, grow, to_forest


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", required=True, type=NewFile(), help="The model's .npz file.")
@click.option("--look-at", multiple=True, type=click.Path(path_type=Path, exists=True), help="Traces to look at only.")
@click.option("--seed", default=0, show_default=True, help="Of the examples and of the trees.")
@click.option("--trees", default=Growth().num_trees, show_default=True, help="Of each head.")
@click.option("--jobs", default=1, show_default=True, help="Processes that read traces.")
@click.option("--cross-validate/--no-cross-validate", default=True, show_default=True)
def train(
    traces: Sequence[Path],
    out: Path,
    look_at: Sequence[Path],
    seed: int,
    trees: int,
    jobs: int,
    cross_validate: bool,
) -> None:
    """Train the line scorer on recorded conversations."""
    growth = Growth(num_trees=trees, seed=seed)
    sources = list(read_sources(traces, seed=seed, jobs=jobs))
    if cross_validate:
        for by in ("agent", "repository"):
            _show(f"leave one {by} out", leave_one_out(sources, growth, by=by))
    forest = to_forest(grow(concatenate([source.examples for source in balanced(sources)]), growth))
    if look_at:
        _show("held-out traces", figures_by_agent(list(read_sources(look_at, seed=seed, jobs=jobs)), forest))
    version = blake2b(forest.leaf.tobytes() + forest.threshold.tobytes(), digest_size=4).hexdigest()
    write_forest(out, forest, {"version": version, "seed": seed, "num_conversations": len(sources)})
    click.echo(f"{out}: version {version}, {len(forest.head_of_tree)} trees, {out.stat().st_size} bytes")


def read_sources(traces: Iterable[Path], *, seed: int, jobs: int) -> Iterator[Source]:
    """The examples of every conversation in some files."""
    lines = [line for path in traces for line in read_lines(path)]
    make = partial(_source, seed=seed)
    if jobs == 1:
        yield from map(make, lines)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(make, lines, chunksize=4)


def figures_by_agent(sources: Sequence[Source], forest: Forest) -> Iterator[HeldOut]:
    """A forest's figures on each agent's conversations."""
    for agent in sorted({source.agent for source in sources}):
        yield from held_out(agent, concatenate([s.examples for s in sources if s.agent == agent]), forest)


def _source(line: TraceLine, seed: int) -> Source:
    trace = parse_trace(line)
    return Source(trace.agent, trace.source, examples(trace, Sampling(), seed))


def _show(title: str, figures: Iterable[HeldOut]) -> None:
    click.echo(title)
    for line in as_table(("features", one) for one in figures):
        click.echo(line)


if __name__ == "__main__":
    train()
