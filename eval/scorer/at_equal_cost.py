"""Compares scorers at equal cost: `python -m sluice.eval.scorer.at_equal_cost FILE… --cost X`.

Reads what `frontier` wrote. Between the prices that were replayed, what is kept is read off the line between them; the
interval of a difference is a bootstrap by conversation, in which both scorers meet the same conversations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from sluice.eval.bootstrap import COVERAGE, NUM_RESAMPLES

KINDS = ("words", "lines", "places")
MIN_INSIDE = 0.98
"""Share of the draws that has to reach a cost between the prices: an interval of fewer is of those that happen to."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sums:
    """One scorer's sums over conversations, by price in the order of the file."""

    untouched: Floats
    """(conversations,): what each costs untouched."""
    cost: Floats
    """(prices, conversations)"""
    kept: Floats
    """(prices, kinds, conversations)"""
    needed: Floats
    """(kinds, conversations)"""

    def kept_at(self, cost: float, weights: Floats) -> Floats:
        """(draws, kinds): the share of facts kept where the cost is this share of untouched; NaN beyond the prices.

        Args:
            cost: as a share of untouched.
            weights: (draws, conversations): how often each draw holds each conversation.
        """
        costs = (weights @ self.cost.T) / (weights @ self.untouched)[:, None]
        needed = weights @ self.needed.T
        shares = np.einsum("dc,pkc->dpk", weights, self.kept) / np.maximum(needed, 1)[:, None, :]
        found = np.full((len(weights), len(KINDS)), np.nan)
        for draw in range(len(weights)):
            order = np.argsort(costs[draw])
            if costs[draw, order[0]] <= cost <= costs[draw, order[-1]]:
                for kind in range(len(KINDS)):
                    found[draw, kind] = np.interp(cost, costs[draw, order], shares[draw, order, kind])
        return found


def read_sums(rows: Sequence[dict[str, Any]], scorer: str) -> Sums:
    """The sums of one scorer over the rows of a file of `frontier`'s."""
    names = [name for name in rows[0]["policies"] if name.split(" ")[0] == scorer]
    if not names:
        raise click.BadParameter(f"no scorer is named {scorer!r}: {', '.join(rows[0]['policies'])}")
    policies = [row["policies"] for row in rows]
    return Sums(
        np.array([each["untouched"]["cost"] for each in policies]),
        np.array([[each[name]["cost"] for each in policies] for name in names]),
        np.array([[[each[name][kind][0] for each in policies] for kind in KINDS] for name in names], np.float64),
        np.array([[each[names[0]][kind][1] for each in policies] for kind in KINDS], np.float64),
    )


def read_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows of some files; what several say of one conversation is joined. Those that not all know are left out."""
    files = [{row["id"]: row for row in map(json.loads, path.read_text().splitlines())} for path in paths]
    # Sorted: `frontier` writes what is done first, and a seed draws by row.
    shared = sorted(name for name in files[0] if all(name in file for file in files))
    return [
        {**files[0][name], "policies": {key: value for file in files for key, value in file[name]["policies"].items()}}
        for name in shared
    ]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--cost", "costs", type=float, multiple=True, required=True, help="Shares of untouched.")
@click.option("--scorer", default="combined", show_default=True)
@click.option("--against", default="features", show_default=True)
@click.option("--by", type=click.Choice(["agent", "source"]), help="Also by group.")
@click.option("--seed", default=0, show_default=True)
def at_equal_cost(
    files: Sequence[Path], costs: Sequence[float], scorer: str, against: str, by: str | None, seed: int
) -> None:
    """What a scorer keeps at the cost of another, and the difference with its 95 % interval."""
    rows = read_rows(files)
    if not rows:
        raise click.ClickException("the files have no conversation in common")
    groups = {"all": rows}
    if by is not None:
        for name in sorted({row[by] for row in rows}):
            groups[name] = [row for row in rows if row[by] == name]
    tail = (1 - COVERAGE) / 2
    for name, some in groups.items():
        one, other = read_sums(some, scorer), read_sums(some, against)
        draw = np.random.default_rng(seed).multinomial(len(some), np.full(len(some), 1 / len(some)), NUM_RESAMPLES)
        weights = np.concatenate([np.ones((1, len(some))), draw])
        click.echo(f"{name}: {len(some)} conversations")
        for cost in costs:
            ours, theirs = one.kept_at(cost, weights), other.kept_at(cost, weights)
            if np.isnan(ours[0]).any() or np.isnan(theirs[0]).any():
                click.echo(f"  x{cost:.3f}  beyond the prices that were replayed")
                continue
            inside = float((~np.isnan(ours - theirs)[1:, 0]).mean())
            parts = []
            for kind, label in enumerate(KINDS):
                difference = (ours - theirs)[1:, kind]
                interval = "no interval"
                if inside >= MIN_INSIDE:
                    low, high = np.nanquantile(difference, [tail, 1 - tail])
                    interval = f"[{low:+.4f}, {high:+.4f}]"
                parts.append(
                    f"{label} {theirs[0, kind]:.4f} -> {ours[0, kind]:.4f} ({(ours - theirs)[0, kind]:+.4f} {interval})"
                )
            click.echo(f"  x{cost:.3f}  {'  '.join(parts)}  {inside:.1%} of the draws lie between the prices")


if __name__ == "__main__":
    at_equal_cost()
