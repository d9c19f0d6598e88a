"""What more conversations would bring: `python -m sluice.eval.scorer.learning_curve STEM… --prepared FOLDER`.

Trees grow on ever larger shares of the conversations, and are judged on folds of repositories that they have not seen.
With `--runs` the last layer is grown as well, over the log odds of networks that had not seen the conversation: a
network's own amount of data stays what it was. Plotted against the logarithm of the amount, such a curve is near
a straight line until the data no longer limit it (Hestness et al. 2017, "Deep Learning Scaling is Predictable,
Empirically"): where the last doubling brings nothing, neither will the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.forest import Forest
from sluice.compressor.scoring.neural.combine import COLUMNS
from sluice.eval.scorer.corpus import Corpus, Group, read_corpora
from sluice.eval.scorer.crossval import DROPPED_SHARES, HeldOut, held_out
from sluice.eval.scorer.data import Examples, Source, balanced, concatenate
from sluice.eval.scorer.last_layer import with_logits, without_logits
from sluice.eval.scorer.logits import Said, by_conversation, logits_file, read_run
from sluice.eval.scorer.prepare import corpus_file, examples_file, read_sources
from sluice.eval.scorer.splits import NUM_FOLDS, folds, repository_of
from sluice.eval.scorer.trees import Growth, averaged, grow, targets, to_forest

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the conversations that may be trained on; the smaller are part of the larger."""
Named = Sequence[tuple[str, Source]]


@dataclass(frozen=True, slots=True)
class Point:
    """A model's figures on one fold, trained on one share."""

    model: str
    """`features`, or `both` where networks' log odds are there."""
    share: float
    draw: int
    """Which order of the conversations."""
    fold: int
    num_conversations: int
    losses: tuple[float, ...]
    """Log loss of each of `HEADS`, each fact counted once, at both moments."""
    figures: tuple[HeldOut, ...]


@click.command()
@click.argument("stems", nargs=-1, required=True)
@click.option("--prepared", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--runs", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Of networks, by folds.")
@click.option("--base", help="Name of the base that windows were made for, with --runs.")
@click.option("--draws", default=3, show_default=True, help="Orders of the conversations.")
@click.option("--examples", default=120_000, show_default=True, help="Of each head, at most.")
@click.option("--trees", default=Growth().num_trees, show_default=True, help="Of each head.")
@click.option("--threads", default=1, show_default=True)
def learning_curve(
    stems: Sequence[str],
    prepared: Path,
    runs: Path | None,
    base: str | None,
    draws: int,
    examples: int,
    trees: int,
    threads: int,
) -> None:
    """Judge the scorer by how much it was trained on."""
    if (runs is None) != (base is None):
        raise click.UsageError("--runs and --base go together: logits are of the windows that were made for a base")
    named = [one for stem in stems for one in read_sources(examples_file(prepared, stem))]
    fold_of = folds_of(named)
    if runs is not None and base is not None:
        corpus = read_corpora([corpus_file(prepared, stem, base) for stem in stems])
        said, fold_of = folds_said(corpus, runs)
        named = list(zip([name for name, _ in named if name in said], with_logits(named, said), strict=True))
    if len({fold_of[name] for name, _ in named}) < 2:
        where = f"logits of two folds in {runs}" if runs is not None else "conversations of two repositories"
        raise click.ClickException(f"nothing can be left out: {where} are needed")
    points: list[Point] = []
    for draw in range(draws):
        growth = Growth(num_trees=trees, max_examples=examples, num_threads=threads, seed=draw)
        for point in curve(named, fold_of, growth, has_logits=runs is not None):
            points.append(point)
            losses = " ".join(f"{head} {loss:.4f}" for head, loss in zip(HEADS, point.losses, strict=True))
            click.echo(f"draw {draw} fold {point.fold} {point.model} {point.share:.4f}: log loss {losses}", err=True)
    for row in as_table(points):
        click.echo(row)


def folds_of(named: Named) -> dict[str, int]:
    """By id of a conversation its fold: whole repositories, about as many examples in each."""
    groups = [Group(name, source.agent, source.repository) for name, source in named]
    sizes = np.array([len(source.examples.weights) for _, source in named], dtype=np.int64)
    fold = folds(groups, sizes)
    return {group.id: fold[repository_of(group)] for group in groups}


def folds_said(corpus: Corpus, runs: Path) -> tuple[dict[str, Said], dict[str, int]]:
    """What the network of each fold said of the conversations that it had not seen, and which fold that was."""
    said: dict[str, Said] = {}
    fold_of: dict[str, int] = {}
    for fold in range(NUM_FOLDS):
        path = logits_file(runs, f"fold-{fold}")
        if not path.is_file():
            continue
        for name, one in by_conversation(corpus, [read_run(path, "train", corpus)]).items():
            if one.results:
                said[name], fold_of[name] = one, fold
    return said, fold_of


def curve(named: Named, fold_of: dict[str, int], growth: Growth, *, has_logits: bool) -> Iterator[Point]:
    """Every point of one order of the conversations, which `growth.seed` draws."""
    names = np.array([name for name, _ in named])
    order = np.random.default_rng(growth.seed).permutation(len(names))
    sources = dict(named)
    for fold in sorted({fold_of[name] for name in names}):
        may_train = [name for name in names[order] if fold_of[name] != fold]
        held = concatenate([source.examples for name, source in named if fold_of[name] == fold])
        for share in SHARES:
            taken = [sources[name] for name in may_train[: max(1, round(share * len(may_train)))]]
            for model, forest in _grown(balanced(taken), growth, has_logits=has_logits):
                judged = replace(held, features=np.ascontiguousarray(held.features[:, : len(forest.features)]))
                figures = tuple(held_out(str(fold), judged, forest))
                yield Point(model, share, growth.seed, fold, len(taken), losses(judged, forest), figures)


def losses(examples: Examples, forest: Forest) -> tuple[float, ...]:
    """The log loss of each head on the lines that carry its facts."""
    margins = forest.margins(examples.features)
    found: list[float] = []
    for number, head in enumerate(HEADS):
        rows, label, weight = targets(examples, head)
        signed = np.where(label[rows] > 0, -margins[rows, number], margins[rows, number])
        found.append(float(np.average(np.logaddexp(0, signed), weights=weight[rows])))
    return tuple(found)


def as_table(points: Sequence[Point]) -> Iterator[str]:
    """Means over folds, each as heavy as the other; log losses with the least and the most of the draws."""
    yield "| conversations | model | log loss, lines | log loss, words | lines lost, 50 / 70 % dropped | words, 70 % |"
    yield "|---|---|---|---|---|---|"
    for share in SHARES:
        for model in sorted({point.model for point in points}, reverse=True):
            of = [point for point in points if point.share == share and point.model == model]
            num = round(float(np.mean([point.num_conversations for point in of])))
            line_loss, word_loss = (_over_draws(of, HEADS.index(head)) for head in ("line", "word"))
            lines = " / ".join(f"{_lost(of, 'line', dropped):.1%}" for dropped in (0.5, 0.7))
            yield f"| {num} | {model} | {line_loss} | {word_loss} | {lines} | {_lost(of, 'word', 0.7):.1%} |"


def _over_draws(points: Sequence[Point], head: int) -> str:
    draws = sorted({point.draw for point in points})
    means = [float(np.mean([point.losses[head] for point in points if point.draw == draw])) for draw in draws]
    return f"{np.mean(means):.4f} [{min(means):.4f}–{max(means):.4f}]"


def _lost(points: Sequence[Point], head: str, dropped: float) -> float:
    """The share of a head's facts that is lost at arrival, where that share of the tokens is dropped."""
    at = DROPPED_SHARES.index(dropped)
    figures = [one for point in points for one in point.figures]
    return float(np.mean([one.lost[at] for one in figures if one.head == head and one.moment == "arrival"]))


def _grown(sources: Sequence[Source], growth: Growth, *, has_logits: bool) -> Iterator[tuple[str, Forest]]:
    alone = to_forest(grow(concatenate([source.examples for source in without_logits(sources)]), growth))
    yield "features", alone
    if has_logits:
        both = to_forest(grow(concatenate([source.examples for source in sources]), growth, COLUMNS), COLUMNS)
        yield "both", averaged(alone, both)


if __name__ == "__main__":
    learning_curve()
