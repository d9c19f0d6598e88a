"""`sluice eval search`: quality on questions with known answers, speed on a tree, the docstring test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sluice.eval.new_file import NewFile

if TYPE_CHECKING:
    from sluice.eval.search.data import Query
    from sluice.eval.search.engines import Engine
    from sluice.search.dense import SharedModel
    from sluice.search.index.store import SegmentStore
    from sluice.search.ranking.rankers import Rankers

_COUNT = click.IntRange(0)
_COLUMNS = (
    ("file_ndcg_10", "NDCG@10"),
    ("file_recall_10", "file recall@10"),
    ("hit_1", "hit@1"),
    ("line_recall_500", "lines 0.5k"),
    ("line_recall_1000", "lines 1k"),
    ("line_recall_2000", "lines 2k"),
    ("tokens", "tokens"),
    ("query_p50_ms", "p50 ms"),
    ("query_p95_ms", "p95 ms"),
)


@click.command("search")
@click.argument("queries", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--repos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Directory of checkouts, one per `dir` (or `repo`) of the questions.",
)
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Measure the baselines too.")
@click.option("--ablation/--no-ablation", default=False, show_default=True, help="Measure parts of the ranking.")
@click.option("--dense", multiple=True, metavar="MODEL", help="Measure with this embedding model too; repeatable.")
@click.option("--speed", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A tree to time.")
@click.option("--docstrings", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A tree of Python.")
@click.option("--docstring-queries", default=300, show_default=True, type=_COUNT)
@click.option("--docstring-files", default=2000, show_default=True, type=_COUNT)
@click.option("--out", type=NewFile(), help="Write all figures here, as JSON.")
def search_command(
    queries: Path,
    repos: Path,
    baselines: bool,
    ablation: bool,
    dense: tuple[str, ...],
    speed: Path | None,
    docstrings: Path | None,
    docstring_queries: int,
    docstring_files: int,
    out: Path | None,
) -> None:
    """Measure code search on QUERIES (JSON lines)."""
    from sluice.eval.machine import hardware
    from sluice.eval.search.data import read_queries
    from sluice.eval.search.docstrings import docstring_test
    from sluice.eval.search.speed import measure_speed
    from sluice.search.ranking.rankers import learned_rankers

    try:
        asked = read_queries(queries)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if not asked:
        raise click.ClickException(f"{queries} holds no question")
    present = [query for query in asked if (repos / query.checkout / query.root).is_dir()]
    if not present:
        raise click.ClickException(f"no question's checkout is below {str(repos)!r}")
    if len(present) < len(asked):
        click.echo(f"{len(asked) - len(present)} of {len(asked)} questions have no checkout", err=True)
    report: dict[str, Any] = {"command": " ".join(["sluice", *sys.argv[1:]]), "machine": hardware()}
    if speed is not None:  # first, while nothing else has taken memory
        try:
            report["speed"] = measure_speed(speed, [query.text for query in present])
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        _print_plain("speed", report["speed"])
    report["quality"] = _quality(present, repos, baselines=baselines, ablation=ablation, dense=dense)
    if docstrings is not None:
        report["docstrings"] = docstring_test(docstrings, learned_rankers(), docstring_queries, docstring_files)
        _print_plain("docstrings", report["docstrings"])
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _quality(
    present: list[Query], repos: Path, *, baselines: bool, ablation: bool, dense: Sequence[str]
) -> dict[str, Any]:
    from sluice.eval.search.ablation import variants
    from sluice.eval.search.engines import SluiceEngine
    from sluice.eval.search.measure import measure, part_of
    from sluice.search.dense import SharedModel
    from sluice.search.index.store import SegmentStore
    from sluice.search.ranking.rankers import learned_rankers

    store = SegmentStore(None)
    rows: dict[str, Any] = {}
    indexed: list[tuple[int, float]] = []

    def ours(rankers: Rankers, segments: SegmentStore, query: Query, model: SharedModel | None = None) -> Engine:
        engine = SluiceEngine(part_of(query, repos), rankers, segments, model)
        indexed.append((engine.num_files, engine.index_s))
        return engine

    makers: dict[str, Callable[[Query], Engine]] = {"sluice": partial(ours, learned_rankers(), store)}
    if ablation:
        for name, rankers in variants().items():
            makers[f"ablation: {name}"] = partial(ours, rankers, store)
    for name in dense:
        makers[f"dense: {name}"] = partial(ours, learned_rankers(), store, model=SharedModel(name))
    if baselines:
        makers.update(_baselines(repos))
    for name, make in makers.items():
        figures = measure(present, make)
        rows[name] = {kind: figure.row() for kind, figure in figures.items()}
        _print_rows(name, rows[name])
        if name == "sluice":
            num_files, seconds = sum(n for n, _ in indexed), sum(s for _, s in indexed)
            rows[name]["index"] = {"num_trees": len(indexed), "num_files": num_files, "index_s": round(seconds, 2)}
    store.close()
    return rows


def _baselines(repos: Path) -> dict[str, Callable[[Query], Engine]]:
    from sluice.eval.search.baselines.bm25 import FileBM25Engine
    from sluice.eval.search.baselines.ripgrep import RipgrepEngine
    from sluice.eval.search.measure import part_of

    found: dict[str, Callable[[Query], Engine]] = {
        "ripgrep, 17-line windows": lambda query: RipgrepEngine(part_of(query, repos)),
        "whole-file BM25": lambda query: FileBM25Engine(part_of(query, repos)),
    }
    try:
        from sluice.eval.search.baselines.semble import SembleEngine, SembleModel

        model = SembleModel()
    except ImportError:
        click.echo("semble is not installed: not measured", err=True)
        return found
    name = "semble" if model.is_dense else "semble (lexical half: its model is not here)"
    found[name] = lambda query: SembleEngine(part_of(query, repos), model)
    return found


def _print_rows(name: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    click.echo(name)
    for kind, row in rows.items():
        cells = (f"{label} {row[key]:.4g}" for key, label in _COLUMNS if key in row)
        click.echo(f"  {kind} ({row['num_queries']:.0f}): " + "  ".join(cells))


def _print_plain(name: str, figures: Mapping[str, float]) -> None:
    click.echo(name)
    for key, value in figures.items():
        click.echo(f"  {key} {value:g}")


@click.command("train-search")
@click.argument("repositories", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--commits", default=50, show_default=True, type=_COUNT, help="Questions out of each repository's commits."
)
@click.option(
    "--comments", default=75, show_default=True, type=_COUNT, help="Questions out of each repository's comments."
)
@click.option(
    "--additions", default=40, show_default=True, type=_COUNT, help="Questions out of commits that added files."
)
@click.option("--out", type=NewFile(), required=True, help="Where the rankers go.")
def train_command(repositories: tuple[Path, ...], commits: int, comments: int, additions: int, out: Path) -> None:
    """Train the rankers of code search on the histories of REPOSITORIES (git directories)."""
    from sluice.eval.search.train import examples_of, save, train

    try:
        examples = examples_of(repositories, commits, comments, additions)
        click.echo(f"{len(examples)} questions", err=True)
        save(train(examples, click.echo), out)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
