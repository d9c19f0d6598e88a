from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sluice.eval.scorer.at_equal_cost import at_equal_cost, read_rows, read_sums


def row(name: str, better_by: int) -> dict[str, object]:
    def policy(cost: float, kept: int) -> dict[str, object]:
        return {"cost": cost, **{kind: [kept, 100] for kind in ("words", "lines", "places")}}

    policies = {
        "untouched": policy(10.0, 100),
        "features 1/1": policy(8.0, 90),
        "features 2/1": policy(6.0, 70),
        "combined 1/1": policy(8.0, 90 + better_by),
        "combined 2/1": policy(6.0, 70 + better_by),
    }
    return {"id": name, "agent": "a", "source": "s", "policies": policies}


def test_what_is_kept_is_read_off_between_prices() -> None:
    sums = read_sums([row("x", 0), row("y", 0)], "features")
    kept = sums.kept_at(0.7, np.ones((1, 2)))
    assert kept[0].tolist() == pytest.approx([0.8, 0.8, 0.8])
    assert np.isnan(sums.kept_at(0.5, np.ones((1, 2)))).all()


def test_differences_are_shown_with_their_intervals(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row(str(number), 4)) + "\n" for number in range(5)))
    done = CliRunner().invoke(at_equal_cost, [str(file), "--cost", "0.7", "--cost", "0.3", "--by", "agent"])
    assert done.exit_code == 0, done.output
    assert "words 0.8000 -> 0.8400 (+0.0400 [+0.0400, +0.0400])" in done.output
    assert "beyond the prices" in done.output


def test_conversations_that_not_all_files_know_are_left_out(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text(json.dumps(row("x", 0)) + "\n" + json.dumps(row("y", 0)) + "\n")
    other.write_text(json.dumps({**row("y", 0), "policies": {"more 1/1": row("y", 0)["policies"]}}) + "\n")
    (joined,) = read_rows([one, other])
    assert joined["id"] == "y"
    assert {"untouched", "more 1/1"} <= set(joined["policies"])
