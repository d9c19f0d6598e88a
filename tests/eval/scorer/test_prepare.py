from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click import UsageError
from click.testing import CliRunner

from sluice.eval.scorer.prepare import examples_file, prepare, prepare_file, read_sources
from sluice.eval.scorer.whole_file import whole_file
from sluice.eval.traces import AGENTS, trace_file


def copied(folder: Path, name: str, agent: str) -> Path:
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(trace_file(agent), folder / name))


def test_examples_of_other_conversations_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    train = copied(tmp_path / "train", "traces.jsonl", AGENTS[0])
    held = copied(tmp_path / "held", "traces.jsonl", AGENTS[1])
    prepare_file(train, [], tmp_path, 0)
    made = examples_file(tmp_path, "traces").read_bytes()
    with pytest.raises(UsageError, match=r"traces\.examples\.npz is not of .*held/traces\.jsonl"):
        prepare_file(held, [], tmp_path, 0)
    moved = copied(tmp_path / "moved", "traces.jsonl", AGENTS[0])
    prepare_file(moved, [], tmp_path, 0)
    assert examples_file(tmp_path, "traces").read_bytes() == made
    assert {source.agent for _, source in read_sources(examples_file(tmp_path, "traces"))} == {AGENTS[0]}


def test_examples_that_say_not_what_they_are_of_are_not_taken(tmp_path: Path) -> None:
    train = copied(tmp_path / "train", "traces.jsonl", AGENTS[0])
    np.savez(examples_file(tmp_path, "traces"), allow_pickle=False, ids=np.array(["x"]))
    with pytest.raises(UsageError, match="remove it, or choose another folder"):
        prepare_file(train, [], tmp_path, 0)


def test_files_of_one_call_that_would_be_kept_under_one_name_are_refused(tmp_path: Path) -> None:
    files = [str(copied(tmp_path, f"dev.{number}.jsonl", AGENTS[0])) for number in range(2)]
    done = CliRunner().invoke(prepare, [*files, "--base", "none", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "would both be kept as 'dev'" in done.output
    assert not (tmp_path / "out").exists()


def test_training_is_not_looked_at_with_the_conversations_that_it_trains_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from sluice.eval.scorer.train_neural import train_neural

    train = copied(tmp_path / "train", "traces.jsonl", AGENTS[0])
    held = copied(tmp_path / "held", "traces.jsonl", AGENTS[1])
    arguments = [str(train), "--look-at", str(held), "--base", "none", "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(train_neural, arguments)
    assert done.exit_code == 2
    assert "would both be kept as 'traces'" in done.output


def test_trees_that_may_have_seen_an_agent_are_not_said_to_be_without_it(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    from sluice.eval.scorer.combine import combine

    folders = [part for name in ("prepared", "runs", "out") for part in (f"--{name}", str(tmp_path))]
    options = ["--base", "none", "--without", AGENTS[0], "--features", str(trace_file(AGENTS[0]))]
    done = CliRunner().invoke(combine, ["traces", *folders, *options])
    assert done.exit_code == 2
    assert f"may have seen {AGENTS[0]!r}" in done.output


def test_a_file_that_was_cut_off_while_it_was_written_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"

    def write(text: bytes, *, is_cut_off: bool) -> None:
        with whole_file(path) as file:
            file.write(text)
            if is_cut_off:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(b"half", is_cut_off=True)
    assert not list(tmp_path.iterdir())
    write(b"whole", is_cut_off=False)
    with pytest.raises(KeyboardInterrupt):
        write(b"half", is_cut_off=True)
    assert path.read_bytes() == b"whole"
