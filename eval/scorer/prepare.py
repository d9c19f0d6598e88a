"""Makes what is trained on: `python -m sluice.eval.scorer.prepare TRACES… --base NAME… --out FOLDER`.

Each file of conversations is read once: its examples for trees (`NAME.examples.npz`), and its windows at arrival, for
each base (`NAME.BASE.corpus`). What is there already, of the same conversations, is not made again. These files hold
the conversations: they are not for publication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import file_digest
from pathlib import Path

import click
import numpy as np

from sluice.compressor.provenance import Kind
from sluice.compressor.scoring.base import Moment
from sluice.compressor.scoring.neural.bases import Base, BaseTokenizer
from sluice.compressor.scoring.neural.windows import WindowMaker
from sluice.compressor.settings import CompressorSettings
from sluice.eval.data import Trace, parse_trace, read_lines
from sluice.eval.scorer.bases import base_named, shape_for
from sluice.eval.scorer.corpus import CorpusBuilder, Group, Labels, write_corpus
from sluice.eval.scorer.data import Examples, Look, Sampling, Source, concatenate, draw_for, looks, sampled
from sluice.eval.scorer.whole_file import whole_file


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--base", "bases", multiple=True, required=True, help="Whose tokens windows are made of.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True, help="Of the examples.")
def prepare(traces: Sequence[Path], bases: Sequence[str], out: Path, seed: int) -> None:
    """Make examples and windows of recorded conversations."""
    check_stems(traces)
    out.mkdir(parents=True, exist_ok=True)
    for path in traces:
        prepare_file(path, [base_named(base) for base in bases], out, seed)


def stem_of(path: Path) -> str:
    """What the files that are made of a file of conversations are named after."""
    return path.name.split(".")[0]


def check_stems(traces: Sequence[Path]) -> None:
    """See that what is made of one file is not taken for what is made of another.

    Raises:
        click.UsageError: two of the files share a stem.
    """
    by_stem: dict[str, Path] = {}
    for path in traces:
        other = by_stem.setdefault(stem_of(path), path)
        if other.resolve() != path.resolve():
            raise click.UsageError(f"{other} and {path} would both be kept as {stem_of(path)!r}: rename one of them")


def prepare_file(path: Path, bases: Sequence[Base], out: Path, seed: int) -> None:
    """Make one file's examples and windows, where they are not there.

    Raises:
        click.UsageError: those that are there are of other conversations.
    """
    stem, digest = stem_of(path), _digest(path)
    # The examples are written last: windows without them were cut off, or nobody knows what they are of.
    is_known = _is_of(examples_file(out, stem), path, digest)
    wanted = [base for base in bases if not (is_known and corpus_file(out, stem, base.name).exists())]
    if is_known and not wanted:
        return
    tokenizers = {base.name: BaseTokenizer(base) for base in wanted}
    shapes = {name: shape_for(tokenizer) for name, tokenizer in tokenizers.items()}
    builders = {name: CorpusBuilder(shape, name) for name, shape in shapes.items()}
    sources: list[tuple[str, Source]] = []
    for line in read_lines(path):
        trace = parse_trace(line)
        makers = {name: WindowMaker(tokenizers[name], shape) for name, shape in shapes.items()}
        sources.append((trace.id, Source(trace.agent, trace.source, _add(trace, makers, builders, seed))))
        if len(sources) % 50 == 0:
            click.echo(f"{path.name}: {len(sources)} conversations", err=True)
    for name, builder in builders.items():
        write_corpus(corpus_file(out, stem, name), builder.build())
    write_sources(examples_file(out, stem), sources, digest)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _is_of(examples: Path, traces: Path, digest: str) -> bool:
    """Whether examples are there; they are of these traces then."""
    if not examples.exists():
        return False
    with np.load(examples, allow_pickle=False) as arrays:
        made_of = str(arrays["made_of"]) if "made_of" in arrays else None
    if made_of != digest:
        raise click.UsageError(f"{examples} is not of {traces} as it is now: remove it, or choose another folder")
    return True


def corpus_file(folder: Path, stem: str, base: str) -> Path:
    """Where the windows of a file of conversations are."""
    return folder / f"{stem}.{Path(base).name}.corpus"


def examples_file(folder: Path, stem: str) -> Path:
    """Where the examples of a file of conversations are."""
    return folder / f"{stem}.examples.npz"


def write_sources(path: Path, sources: Sequence[tuple[str, Source]], made_of: str) -> None:
    """Write conversations' examples with their ids, and the digest of the file that they were made of."""
    merged = concatenate([source.examples for _, source in sources])
    with whole_file(path) as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            made_of=np.array(made_of),
            ids=np.array([name for name, _ in sources]),
            agents=np.array([source.agent for _, source in sources]),
            repositories=np.array([source.repository for _, source in sources]),
            sizes=np.array([len(source.examples.weights) for _, source in sources]),
            **{field.name: getattr(merged, field.name) for field in fields(Examples)},
        )


def read_sources(path: Path) -> list[tuple[str, Source]]:
    """What `write_sources` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        columns = {field.name: arrays[field.name] for field in fields(Examples)}
        names = zip(arrays["ids"], arrays["agents"], arrays["repositories"], strict=True)
        stops = np.cumsum(arrays["sizes"])
        starts = stops - arrays["sizes"]
    return [
        (str(name), Source(str(agent), str(repository), Examples(**{k: v[start:stop] for k, v in columns.items()})))
        for (name, agent, repository), start, stop in zip(names, starts, stops, strict=True)
    ]


def _add(trace: Trace, makers: Mapping[str, WindowMaker], builders: Mapping[str, CorpusBuilder], seed: int) -> Examples:
    sampling = Sampling()
    draw = draw_for(trace, seed)
    for builder in builders.values():
        builder.begin(Group(trace.id, trace.agent, trace.source))
    parts: list[Examples] = []
    for look in looks(trace, sampling, draw):
        parts.append(sampled(look, sampling, draw))
        if look.moment is Moment.ARRIVAL:
            for name, maker in makers.items():
                _add_windows(look, maker, builders[name])
    return concatenate(parts)


def _add_windows(look: Look, maker: WindowMaker, builder: CorpusBuilder) -> None:
    """The windows of the results that a judge would have scored."""
    max_lines = CompressorSettings().max_scored_lines
    for window in maker.windows(look.evidence, look.segments):
        segment = look.segments[window.segment]
        if segment.provenance.kind is Kind.EDIT or len(segment.lines) > max_lines:
            continue
        start = look.table.bounds[window.segment] + window.first_line
        lines = slice(start, start + len(window.line_ends))
        labels = Labels(
            look.num_words[lines],
            look.num_lines[lines],
            look.table.is_line_fact[lines],
            look.table.has_word_fact[lines],
        )
        builder.add(window, look.messages[window.segment], segment.index, labels)


if __name__ == "__main__":
    prepare()
