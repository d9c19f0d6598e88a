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


def test_draws_that_do_not_reach_a_cost_are_counted_and_few_of_them_have_no_interval(tmp_path: Path) -> None:
    rows = [row(str(number), 4) for number in range(10)]
    for number, one in enumerate(rows):
        for name, policy in one["policies"].items():  # type: ignore[attr-defined]
            if name.endswith("2/1"):  # the dearest price costs .51 to .69: .6 of all, more or less in a draw
                policy["cost"] = 5.1 + 0.2 * number
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    done = CliRunner().invoke(at_equal_cost, [str(file), "--cost", "0.601", "--cost", "0.75"])
    assert done.exit_code == 0, done.output
    edge, middle = done.output.splitlines()[1:]
    assert "(+0.0400 no interval)" in edge
    assert 0.4 < float(edge.split()[-8].rstrip("%")) / 100 < 0.7
    assert "(+0.0400 [+0.0400, +0.0400])" in middle
    assert "100.0% of the draws lie between the prices" in middle


def test_a_seed_draws_the_same_conversations_whichever_were_done_first(tmp_path: Path) -> None:
    rows = [row(str(number), number) for number in range(8)]
    said = []
    for name, order in (("one", rows), ("other", rows[::-1])):
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in order))
        said.append(CliRunner().invoke(at_equal_cost, [str(tmp_path / name), "--cost", "0.7"]).output)
    assert "words" in said[0]
    assert said[0] == said[1]


def test_files_without_a_common_conversation_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    done = CliRunner().invoke(at_equal_cost, [str(tmp_path / "none"), "--cost", "0.7"])
    assert done.exit_code == 1
    assert "no conversation in common" in done.output


def test_conversations_that_not_all_files_know_are_left_out(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text(json.dumps(row("x", 0)) + "\n" + json.dumps(row("y", 0)) + "\n")
    other.write_text(json.dumps({**row("y", 0), "policies": {"more 1/1": row("y", 0)["policies"]}}) + "\n")
    (joined,) = read_rows([one, other])
    assert joined["id"] == "y"
    assert {"untouched", "more 1/1"} <= set(joined["policies"])
