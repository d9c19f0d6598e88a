from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sluice.eval.scorer.frontier import frontier
from sluice.eval.scorer.logits import read_run
from sluice.eval.traces import AGENTS, trace_file

TRACES = str(trace_file(AGENTS[0]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "none are named"),
        (("--logits", "main.npz", "look_at", "no-*.corpus"), "there are no such corpora"),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_any_process_is_begun(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    # In a process of its own, which can be ended: processes of a pool that fail as they begin are begun anew.
    arguments = [TRACES, "--model", str(tmp_path), *options, "--price", "1e-4/1e-4", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "sluice.eval.scorer.frontier", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_trees_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "trees.npz").write_bytes(b"no trees")
    arguments = [TRACES, "--features", str(tmp_path / "trees.npz"), "--price", "1e-4/1e-4"]
    done = CliRunner().invoke(frontier, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "trees.npz" in done.output


def test_a_run_is_asked_for_a_part_that_it_has(tmp_path: Path) -> None:
    file = tmp_path / "main.logits.npz"
    np.savez(file, allow_pickle=False, train=np.zeros(0), train_windows=np.zeros(0))
    with pytest.raises(ValueError, match="holds no part 'dev': it holds train, train_windows"):
        read_run(file, "dev", None)  # type: ignore[arg-type]


def test_shipped_trees_are_replayed_at_a_price(tmp_path: Path) -> None:
    done = CliRunner().invoke(frontier, [TRACES, "--price", "1e-3/1e-3", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    (row, *_) = map(json.loads, (tmp_path / "out").read_text().splitlines())
    assert set(row["policies"]) == {"untouched", "features 0.001/0.001"}
