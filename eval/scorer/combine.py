"""Fits the last layer: `python -m sluice.eval.scorer.combine STEM… --prepared FOLDER --runs FOLDER --out FOLDER`.

Reads what `prepare` and `train_neural` left. The trees learn from what each fold's network said of repositories that it
had not seen; what both together lose on agents and traces that nothing was trained on is printed beside the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from sluice.compressor.scoring.forest import Forest, write_forest
from sluice.compressor.scoring.neural.card import COMBINATION
from sluice.eval.scorer.combined import FEATURES
from sluice.eval.scorer.corpus import Corpus, read_corpora, read_corpus
from sluice.eval.scorer.crossval import DROPPED_SHARES, MIN_NEEDED, HeldOut
from sluice.eval.scorer.data import Source, balanced, concatenate
from sluice.eval.scorer.last_layer import compare, forests, with_logits
from sluice.eval.scorer.logits import Said, by_conversation, read_run
from sluice.eval.scorer.prepare import corpus_file, examples_file, read_sources
from sluice.eval.scorer.splits import MAIN
from sluice.eval.scorer.trees import Growth

_SUFFIX = ".logits.npz"
Named = Sequence[tuple[str, Source]]


@click.command()
@click.argument("stems", nargs=-1, required=True)
@click.option("--prepared", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--runs", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--base", required=True, help="Name of the base.")
@click.option("--look-at", help="Stem of traces to look at only.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The model's folder.")
@click.option("--trees", default=Growth().num_trees, show_default=True, help="Of each head.")
@click.option("--seed", default=0, show_default=True)
def combine(
    stems: Sequence[str],
    prepared: Path,
    runs: Path,
    base: str,
    look_at: str | None,
    out: Path,
    trees: int,
    seed: int,
) -> None:
    """Fit trees over the features and a network's logits."""
    growth = Growth(num_trees=trees, seed=seed)
    named = [one for stem in stems for one in read_sources(examples_file(prepared, stem))]
    corpus = read_corpora([corpus_file(prepared, stem, base) for stem in stems])
    files = {path.name.removesuffix(_SUFFIX): path for path in sorted(runs.glob(f"*{_SUFFIX}"))}
    folds = [read_run(path, "train", corpus) for run, path in files.items() if run.startswith("fold-")]
    sources = balanced(with_logits(named, by_conversation(corpus, folds)))
    click.echo(f"{len(sources)} conversations, {sum(len(s.examples.weights) for s in sources):,} examples")
    trained = forests(sources, growth)
    out.mkdir(parents=True, exist_ok=True)
    note = {"seed": seed, "num_conversations": len(sources)}
    write_forest(out / FEATURES, trained[0], {**note, "version": "alone"})
    write_forest(out / COMBINATION, trained[1], {**note, "version": "both"})
    if look_at:
        held_named = read_sources(examples_file(prepared, look_at))
        held_corpus = read_corpus(corpus_file(prepared, look_at, base))
        show(f"{look_at}, main", _by_agent(held_named, held_corpus, files[MAIN], look_at, trained))
    for run, path in files.items():
        agent = run.removeprefix("agent-")
        if agent == run:
            continue
        rest = forests([source for source in sources if source.agent != agent], growth)
        said = by_conversation(corpus, [read_run(path, "train", corpus)])
        held = with_logits([one for one in named if one[1].agent == agent], said)
        show(f"without {agent}", compare(agent, held, rest))
        if look_at:
            show(f"without {agent}, {look_at}", _by_agent(held_named, held_corpus, path, look_at, rest, agent))


def show(title: str, figures: Iterator[tuple[str, HeldOut]]) -> None:
    """Print figures, with what each kind of model loses."""
    shares = "  ".join(f"{share:5.0%}" for share in DROPPED_SHARES)
    click.echo(f"{title}\n  {'held out':24}{'model':9}{'head':6}{'moment':9}{'needed':>7}   facts lost: {shares}")
    for model, one in figures:
        lost = "  ".join(f"{share:5.1%}" for share in one.lost)
        click.echo(f"  {one.group:24}{model:9}{one.head:6}{one.moment:9}{one.num_needed:7}{'':15}{lost}")


def as_json(figures: Mapping[str, Sequence[tuple[str, HeldOut]]]) -> dict[str, list[dict[str, object]]]:
    """Figures for a card."""
    return {title: [{"model": model, **asdict(one)} for model, one in found] for title, found in figures.items()}


def _by_agent(
    named: Named,
    corpus: Corpus,
    run: Path,
    stem: str,
    trained: tuple[Forest, Forest],
    only: str | None = None,
) -> Iterator[tuple[str, HeldOut]]:
    said: Mapping[str, Said] = by_conversation(corpus, [read_run(run, stem, corpus)])
    sources = with_logits(named, said)
    for agent in sorted({source.agent for source in sources}):
        if only not in (None, agent):
            continue
        held = [source for source in sources if source.agent == agent]
        needed = concatenate([source.examples for source in held])
        if min(needed.num_words.sum(), needed.num_lines.sum()) >= MIN_NEEDED:
            yield from compare(agent, held, trained)
    if only is None:
        yield from compare("all", sources, trained)


if __name__ == "__main__":
    combine()
