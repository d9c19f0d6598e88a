"""The command `sluice compact`: the shortened text goes to stdout, what was done to stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import click

if TYPE_CHECKING:
    from sluice.compressor.scoring import Scorer


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--query", default="", help="What the text is wanted for; lines that bear on it are worth more.")
@click.option("--ratio", type=click.FloatRange(0, 1, min_open=True), help="Share of the tokens to keep.")
@click.option(
    "--mode",
    type=click.Choice(["safe", "balanced"]),
    default="balanced",
    show_default=True,
    help="safe: only what the text repeats goes.",
)
@click.option("--markers/--no-markers", default=True, show_default=True, help="Say where lines were dropped.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object: the text, and which lines stay and go.")
def compact(file: BinaryIO, query: str, ratio: float | None, mode: str, markers: bool, is_json: bool) -> None:
    """Shorten a text; every line that stays is as it was.

    FILE is a text file, or - for standard input. What stands between <keepContext> and </keepContext> stays whole.
    """
    from sluice.compressor.compact import compact_text

    if ratio is not None and mode == "safe":
        raise click.UsageError("--ratio needs lines to be scored: it does not go with --mode safe")
    if file.isatty():
        click.echo("reading from the terminal, until Ctrl-D", err=True)
    # Bytes that are no UTF-8 go out as they came.
    text = file.read().decode("utf-8", "surrogateescape")
    scorer = None if mode == "safe" else _scorer()
    done = compact_text(text, query=query, ratio=ratio, include_markers=markers, scorer=scorer)
    if is_json:
        import json

        ranges = {
            name: [{"start": first, "end": last} for first, last in found]
            for name, found in (("compacted_line_ranges", done.compacted), ("kept_line_ranges", done.kept))
        }
        click.echo(json.dumps({"output": done.text, **ranges}))
        return
    click.echo(done.text.encode("utf-8", "surrogateescape"), nl=False)
    num_kept = sum(last - first + 1 for first, last in done.kept) if text else 0
    num_lines = num_kept + sum(last - first + 1 for first, last in done.compacted)
    share = len(done.text) / len(text) if text else 1.0
    click.echo(f"{num_kept:,} of {num_lines:,} lines, {share:.0%} of the characters", err=True)


def _scorer() -> Scorer:
    from sluice.compressor.scoring import ModelFileError, load_default

    try:
        return load_default()
    except (ImportError, ModelFileError) as error:
        raise click.ClickException(f"lines cannot be scored: {error}; --mode safe needs no scorer") from None
