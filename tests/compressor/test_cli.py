from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import scoring
from sluice.compressor.cli import compact

LOG = "\n".join(f"  building module_{number % 30:02d} with option_{number % 30:02d}" for number in range(240)) + "\n"


def test_a_file_is_shortened_to_stdout_and_what_was_done_is_said_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "build.log"
    file.write_text(LOG)
    done = CliRunner().invoke(compact, [str(file), "--mode", "safe"])
    assert done.exit_code == 0
    assert len(done.stdout) < len(LOG) / 2
    assert set(done.stdout.splitlines()) - set(LOG.splitlines()) <= {
        line for line in done.stdout.splitlines() if line.startswith("[sluice ")
    }
    assert "of 240 lines" in done.stderr


def test_json_tells_which_lines_stay_and_which_go() -> None:
    done = CliRunner().invoke(compact, ["--json", "--ratio", "0.3", "--query", "option_07"], input=LOG)
    found = json.loads(done.stdout)
    spans = sorted((span["start"], span["end"]) for name in found if name != "output" for span in found[name])
    assert spans[0][0] == 1
    assert all(after[0] == before[1] + 1 for before, after in pairwise(spans))
    assert "option_07" in found["output"]


def test_the_scorer_needs_a_mode_that_scores() -> None:
    done = CliRunner().invoke(compact, ["--mode", "safe", "--ratio", "0.5"], input=LOG)
    assert done.exit_code == 2
    assert "--ratio" in done.output


@pytest.mark.parametrize("ratio", ["0", "1.5", "half"])
def test_a_ratio_out_of_range_is_named(ratio: str) -> None:
    done = CliRunner().invoke(compact, ["--ratio", ratio], input=LOG)
    assert done.exit_code == 2
    assert ratio in done.output


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_go_out_as_they_came(data: bytes) -> None:
    done = CliRunner().invoke(compact, ["--mode", "safe"], input=data)
    assert done.exit_code == 0
    # So short a text holds nothing that it repeats at length.
    assert done.stdout_bytes == data


def test_without_a_scorer_it_says_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("no numpy")

    monkeypatch.setattr(scoring, "load_default", broken)
    done = CliRunner().invoke(compact, [], input=LOG)
    assert done.exit_code == 1
    assert "no numpy; --mode safe needs no scorer" in done.output
    assert CliRunner().invoke(compact, ["--mode", "safe"], input=LOG).exit_code == 0


def test_an_empty_text_has_no_lines() -> None:
    done = CliRunner().invoke(compact, [], input=b"")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "0 of 0 lines, 100% of the characters\n"
