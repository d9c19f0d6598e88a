"""Trains networks that read lines: `python -m sluice.eval.scorer.train_neural TRACES… --base NAME --out FOLDER`.

For each run (see `splits.py`) what was trained goes to `FOLDER/RUN/`, and the logits of what the run has not seen to
`FOLDER/RUN.logits.npz`. A run whose logits are there is not done again; one that was cut off goes on from its
checkpoint. The same traces, options and library versions on the same machine give the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.bases import Base
from sluice.compressor.scoring.neural.card import write_card
from sluice.compressor.scoring.neural.lora import add_adapters
from sluice.compressor.scoring.neural.model_file import base_digest, write_adapter
from sluice.compressor.scoring.neural.network import LineNetwork, load_network
from sluice.compressor.scoring.neural.windows import WindowShape
from sluice.eval.scorer.bases import base_named
from sluice.eval.scorer.corpus import Corpus, concatenated, read_corpus
from sluice.eval.scorer.device import DeviceCorpus
from sluice.eval.scorer.fit import Plan, fit, score
from sluice.eval.scorer.logits import logits_file
from sluice.eval.scorer.splits import MAIN, left_out, repository_of
from sluice.eval.scorer.whole_file import whole_file

CORPUS = ".corpus"
PRIOR_LOGIT = -3.0
"""About three lines in a hundred are needed: where the head begins."""


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--base", required=True, help="Name or folder of the base; see bases.py.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--look-at", multiple=True, type=click.Path(path_type=Path, exists=True), help="Traces to score only.")
@click.option(
    "--run",
    "runs",
    multiple=True,
    default=(MAIN,),
    help="main, fold-N, agent-NAME, in this order; with `:N`, so many epochs.",
)
@click.option("--layers", type=click.IntRange(min=1), help="Of the base, from below; default: all.")
@click.option("--epochs", default=Plan().epochs, show_default=True)
@click.option("--minutes", type=float, help="Of each run's training, at most.")
@click.option("--idle-share", default=Plan().idle_share, show_default=True, help="Of windows without a needed line.")
@click.option("--learning-rate", default=Plan().learning_rate, show_default=True)
@click.option("--batch-tokens", default=Plan().batch_tokens, show_default=True)
@click.option("--rank", default=Plan().rank, show_default=True, help="Of the adapters.")
@click.option("--seed", default=0, show_default=True)
def train_neural(
    traces: Sequence[Path],
    base: str,
    out: Path,
    look_at: Sequence[Path],
    runs: Sequence[str],
    layers: int | None,
    epochs: float,
    minutes: float | None,
    idle_share: float,
    learning_rate: float,
    batch_tokens: int,
    rank: int,
    seed: int,
) -> None:
    """Train a network on recorded conversations (or on corpora that `prepare` made of them)."""
    if conversations := [path for path in (*traces, *look_at) if path.suffix != CORPUS]:
        from sluice.eval.scorer.prepare import check_stems

        check_stems(conversations)
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{time.monotonic() - begun:6.1f} s] {text}")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = Plan(
        epochs=epochs,
        minutes=minutes,
        idle_share=idle_share,
        learning_rate=learning_rate,
        head_rate=2 * learning_rate,
        batch_tokens=batch_tokens,
        rank=rank,
        alpha=2.0 * rank,
        seed=seed,
    )
    found = base_named(base)
    wanted = _runs(runs, epochs)
    train = concatenated([_corpus(path, found, out, seed) for path in traces])
    held = concatenated([_corpus(path, found, out, seed) for path in look_at]) if look_at else None
    try:
        left_out_by = {run: left_out(run, train) for run, _ in wanted}
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--run") from error
    on_device = DeviceCorpus(train, line_weights(train), device)
    held_on_device = DeviceCorpus(held, np.ones(len(held.flags), np.float32), device) if held is not None else None
    say(f"{len(train):,} windows, {train.num_tokens.sum():,} tokens, {len(train.flags):,} lines; {device}")
    for run, run_epochs in wanted:
        if logits_file(out, run).exists():
            continue
        torch.manual_seed(seed)
        network = load_network(found, num_layers=layers)
        digest = base_digest(network)
        ready(network, plan, device)
        hidden = left_out_by[run]
        is_hidden = hidden[train.windows[:, 0]]
        say(f"{run}: trains on {int((~hidden).sum())} conversations, {int((~is_hidden).sum()):,} windows")
        own = replace(plan, epochs=run_epochs)
        fit(network, train, on_device, np.flatnonzero(~is_hidden), own, out / f"{run}.checkpoint", say)
        _write(out / run, network, found, layers, digest, train.shape, run, own, int((~hidden).sum()))
        unseen = np.flatnonzero(is_hidden)
        logits: dict[str, Any] = {"train": score(network, on_device, unseen, batch_tokens), "train_windows": unseen}
        if held is not None and held_on_device is not None:
            logits["look_at"] = _looked_at(run, network, held, held_on_device, batch_tokens)
        with whole_file(logits_file(out, run)) as file:
            np.savez(file, allow_pickle=False, **logits)
        (out / f"{run}.checkpoint").unlink(missing_ok=True)
        say(f"{run}: done")


def _runs(texts: Sequence[str], epochs: float) -> list[tuple[str, float]]:
    """Runs and their epochs, of `NAME` or `NAME:EPOCHS`."""
    found = []
    for text in texts:
        name, _, own = text.partition(":")
        try:
            found.append((name, float(own or epochs)))
        except ValueError as error:
            raise click.BadParameter(f"--run {text!r}: {own!r} is no number of epochs") from error
    return found


def ready(network: LineNetwork, plan: Plan, device: torch.device) -> None:
    """Put adapters beside a base's layers and set the head to where it begins, on a device."""
    network.base.requires_grad_(False)
    add_adapters(network.base, plan.rank, plan.alpha)
    with torch.no_grad():
        network.head.weight.normal_(std=0.02)
        network.head.bias.fill_(PRIOR_LOGIT)
    network.to(device)
    if device.type == "cuda":
        for name, value in network.base.named_parameters():
            if not name.endswith((".a", ".b")):
                value.data = value.data.to(torch.bfloat16)


def _looked_at(
    run: str, network: LineNetwork, held: Corpus, on_device: DeviceCorpus, batch_tokens: int
) -> npt.NDArray[np.float16]:
    """Logits of what is only looked at: of all by `main`, of its agent's by a run without one; the rest is NaN."""
    asked = np.array([run in (MAIN, f"agent-{group.agent}") for group in held.groups])[held.windows[:, 0]]
    found = np.full((len(held.flags), len(HEADS)), np.nan, np.float16)
    found[np.repeat(asked, np.diff(held.line_starts))] = score(network, on_device, np.flatnonzero(asked), batch_tokens)
    return found


def line_weights(corpus: Corpus) -> npt.NDArray[np.float32]:
    """Of each line: long lines weigh more, for they are what is saved, and lines of repositories with many less."""
    num_lines = np.diff(corpus.line_starts)
    first = np.repeat(corpus.windows[:, 4] - 1, num_lines)
    before = np.concatenate([[0], corpus.line_ends[:-1]]).astype(np.int64)
    is_first = np.zeros(len(corpus.line_ends), dtype=bool)
    is_first[corpus.line_starts[:-1][num_lines > 0]] = True
    sizes = corpus.line_ends.astype(np.int64) - np.where(is_first, first, before)
    repositories, numbers = np.unique([repository_of(group) for group in corpus.groups], return_inverse=True)
    of_line = np.repeat(numbers[corpus.windows[:, 0]], num_lines)
    totals = np.maximum(np.bincount(of_line, minlength=len(repositories)), 1)
    weights: npt.NDArray[np.float64] = np.sqrt(np.minimum(sizes, 32) / 12 * (totals.mean() / totals)[of_line])
    return weights.astype(np.float32)


def _corpus(path: Path, base: Base, out: Path, seed: int) -> Corpus:
    if path.suffix != CORPUS:
        from sluice.eval.scorer.prepare import corpus_file, prepare_file, stem_of

        prepare_file(path, [base], out, seed)
        path = corpus_file(out, stem_of(path), base.name)
    corpus = read_corpus(path)
    if corpus.base != base.name:
        raise click.UsageError(f"{path} holds tokens of {corpus.base}, not of {base.name}")
    return corpus


def _write(
    folder: Path,
    network: LineNetwork,
    base: Base,
    num_layers: int | None,
    digest: str,
    shape: WindowShape,
    run: str,
    plan: Plan,
    num_conversations: int,
) -> None:
    write_adapter(folder, network)
    note = {"run": run, "epochs": plan.epochs, "seed": plan.seed, "num_conversations": num_conversations}
    write_card(
        folder,
        name=f"{base.name}-{run}",
        base=base,
        num_layers=num_layers,
        digest=digest,
        shape=shape,
        note=note,
    )


if __name__ == "__main__":
    train_neural()
