"""Fits the last layer: `python -m sluice.eval.scorer.combine STEM… --prepared FOLDER --runs FOLDER --out FOLDER`.

Reads what `prepare` and `train_neural` left. The trees learn from what networks said of conversations that they had not
seen. What features alone and both together lose is printed for traces and agents that nothing was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from sluice.compressor.scoring.forest import Forest, read_forest, write_forest
from sluice.compressor.scoring.neural.card import COMBINATION
from sluice.eval.scorer.combined import FEATURES
from sluice.eval.scorer.corpus import Corpus, read_corpora
from sluice.eval.scorer.crossval import MIN_NEEDED, HeldOut, as_table
from sluice.eval.scorer.data import Source, balanced, concatenate
from sluice.eval.scorer.last_layer import compare, forests, with_logits
from sluice.eval.scorer.logits import by_conversation, logits_file, read_run
from sluice.eval.scorer.prepare import corpus_file, examples_file, read_sources
from sluice.eval.scorer.splits import MAIN, NUM_FOLDS
from sluice.eval.scorer.trees import Growth

Named = Sequence[tuple[str, Source]]


@click.command()
@click.argument("stems", nargs=-1, required=True)
@click.option("--prepared", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--runs", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--base", required=True, help="Name of the base.")
@click.option("--features", type=click.Path(path_type=Path, exists=True), help="Trees over features to read.")
@click.option("--unseen", multiple=True, metavar="RUN", help="Whose logits; the later goes first. Default: all folds.")
@click.option("--without", "agent", help="An agent that is left out: what is lost of its facts is printed.")
@click.option("--look-at", multiple=True, help="Stems of the traces that the runs looked at only.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The model's folder.")
@click.option("--trees", default=Growth().num_trees, show_default=True, help="Of each head.")
@click.option("--examples", default=Growth().max_examples, show_default=True, help="Of each head, at most.")
@click.option("--threads", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
def combine(
    stems: Sequence[str],
    prepared: Path,
    runs: Path,
    base: str,
    features: Path | None,
    unseen: Sequence[str],
    agent: str | None,
    look_at: Sequence[str],
    out: Path,
    trees: int,
    examples: int,
    threads: int,
    seed: int,
) -> None:
    """Fit trees over the features and a network's logits."""
    if agent is not None and features is not None:
        raise click.UsageError(f"--features holds trees that may have seen {agent!r}, which --without is to leave out")
    growth = Growth(num_trees=trees, max_examples=examples, num_threads=threads, seed=seed)
    named = [one for stem in stems for one in read_sources(examples_file(prepared, stem))]
    corpus = read_corpora([corpus_file(prepared, stem, base) for stem in stems])
    folds = (f"fold-{number}" for number in range(NUM_FOLDS))
    wanted = unseen or [run for run in folds if logits_file(runs, run).is_file()]
    parts = [read_run(_found(runs, run), "train", corpus) for run in wanted]
    seen = [one for one in named if one[1].agent != agent]
    sources = with_logits(seen, by_conversation(corpus, parts))
    alone = read_forest(features)[0] if features else None
    trained = forests(balanced(sources), growth, alone)
    left_out = "" if agent is None else f"without {agent}: "
    num_examples = sum(len(source.examples.weights) for source in sources)
    click.echo(f"{left_out}{len(sources)} conversations have logits, {num_examples:,} examples")
    out.mkdir(parents=True, exist_ok=True)
    note = {"seed": seed, "num_conversations": len(sources), "without": agent}
    write_forest(out / FEATURES, trained[0], {**note, "version": "alone"})
    write_forest(out / COMBINATION, trained[1], {**note, "version": "both"})
    run = MAIN if agent is None else f"agent-{agent}"
    if agent is not None:
        said = by_conversation(corpus, [read_run(_found(runs, run), "train", corpus)])
        held = with_logits([one for one in named if one[1].agent == agent], said)
        _show(f"without {agent}", compare(agent, held, trained))
    if look_at:
        held_named = [one for stem in look_at for one in read_sources(examples_file(prepared, stem))]
        held_corpus = read_corpora([corpus_file(prepared, stem, base) for stem in look_at])
        _show("looked at only", by_agent(held_named, held_corpus, _found(runs, run), trained, agent))


def _found(runs: Path, run: str) -> Path:
    path = logits_file(runs, run)
    if not path.is_file():
        raise click.ClickException(f"{path}: there are no logits of the run {run!r}; train_neural writes them")
    return path


def by_agent(
    named: Named, corpus: Corpus, run: Path, trained: tuple[Forest, Forest], only: str | None
) -> Iterator[tuple[str, HeldOut]]:
    """The figures of each agent's conversations (or one's), and of all of them."""
    sources = with_logits(named, by_conversation(corpus, [read_run(run, "look_at", corpus)]))
    for agent in sorted({source.agent for source in sources} if only is None else {only}):
        held = [source for source in sources if source.agent == agent]
        needed = concatenate([source.examples for source in held])
        if min(needed.num_words.sum(), needed.num_lines.sum()) >= MIN_NEEDED:
            yield from compare(agent, held, trained)
    if only is None:
        yield from compare("all", sources, trained)


def _show(title: str, figures: Iterator[tuple[str, HeldOut]]) -> None:
    click.echo(title)
    for line in as_table(figures):
        click.echo(line)


if __name__ == "__main__":
    combine()
