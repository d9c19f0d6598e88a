from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sluice.backend.bench import workload
from sluice.backend.bench.cli import bench


def test_every_round_asks_for_something_new() -> None:
    for make in (workload.plain, workload.edit, workload.long):
        assert len({make(number, 10).text for number in range(1000, 1064)}) == 64


@pytest.mark.engine
def test_it_measures_the_engine_and_the_baseline(wide_tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    arguments = ["engine", "--model", str(wide_tiny_folder), "--streams", "1,2", "--tokens", "4", "--rounds", "2"]
    arguments += ["--prompt-tokens", "40", "--transformers", "--json", str(file)]
    result = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    values = json.loads(file.read_text())["values"]
    assert set(values) == {"engine", "engine, no speculation", "transformers"}
    for figures in values.values():
        assert all(len(entry) == 2 and min(entry) > 0 for name, entry in figures.items() if "×1" in name)
    assert "cached prompt, TTFT ms" in values["engine"]
    assert "plain ×2, tokens/s" in values["transformers"]


def test_a_server_that_is_none_is_named(wide_tiny_folder: Path) -> None:
    arguments = ["engine", "--model", str(wide_tiny_folder), "--streams", "1", "--rounds", "1"]
    result = CliRunner().invoke(bench, [*arguments, "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 serves no model list" in result.output


def test_a_wrong_number_of_streams_is_named() -> None:
    result = CliRunner().invoke(bench, ["engine", "--streams", "many"])
    assert result.exit_code == 2
    assert "'many'" in result.output
