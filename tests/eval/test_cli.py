from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from sluice.compressor import Compressed, Compressor, Mode
from sluice.eval.cli import evaluate
from sluice.eval.policies import FRAMES
from sluice.eval.traces import AGENTS, trace_file
from tests.full_disk import files_end_at

FILES = [str(trace_file(agent)) for agent in AGENTS]


def invoke(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(evaluate, ["replay", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_all_policies_with_json(tmp_path: Path) -> None:
    output = invoke(*FILES, "--jobs", "1", "--json", str(tmp_path / "out.json"))
    data = json.loads((tmp_path / "out.json").read_text())
    rows = {row["policy"]: row for row in data["policies"]}
    assert list(rows) == ["untouched", "safe", *FRAMES]
    assert all(name in output for name in rows)
    assert "4 conversations, 52 requests" in output
    assert "safe: dearest against untouched is made-up/" in output
    assert rows["untouched"]["input_cost"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert rows["untouched"]["words"]["value"] == rows["oracle"]["words"]["value"] == 1.0
    assert rows["safe"]["input_cost"]["value"] < 0.95
    assert rows["safe"]["num_rewrites"] == 0 < rows["mask-10"]["num_rewrites"]
    assert rows["safe"]["measured"]["bypasses"] == {}
    assert rows["random-equal"]["input_cost"]["value"] == pytest.approx(rows["safe"]["input_cost"]["value"], abs=0.02)
    assert [trace["agent"] for trace in data["traces"]] == list(AGENTS)
    assert sorted(data["by_agent"]) == sorted(AGENTS)


def test_several_processes_give_the_same_figures(tmp_path: Path) -> None:
    figures = []
    for jobs in ("1", "2"):
        invoke(*FILES, "--jobs", jobs, "--json", str(tmp_path / jobs), "--policy", "safe", "--policy", "random-equal")
        data = json.loads((tmp_path / jobs).read_text())
        for row in data["policies"]:
            row.pop("measured")
        figures.append((data["policies"], data["traces"]))
    assert figures[0] == figures[1]


def test_choices(tmp_path: Path) -> None:
    def chosen(*arguments: str) -> dict[str, object]:
        file = tmp_path / "out.json"
        invoke(*FILES, "--jobs", "1", "--policy", "safe", "--json", str(file), *arguments)
        data: dict[str, object] = json.loads(file.read_text())
        return data

    assert [trace["agent"] for trace in chosen("--agent", "opencode")["traces"]] == ["opencode"]  # type: ignore[attr-defined]
    assert len(chosen("--limit", "3")["traces"]) == 3  # type: ignore[arg-type]
    assert chosen("--max-turns", "2")["policies"][0]["num_turns"] == 8  # type: ignore[index]
    assert list(chosen("--by", "source")["by_source"]) == ["made-up"]  # type: ignore[call-overload]
    costs = {
        name: chosen(*name.split())["policies"][0]["input_cost"]["value"]  # type: ignore[index]
        for name in ("--cold", "--cache anthropic", "--prices openai", "--prices self-hosted", "--prices anthropic-1h")
    }
    assert len(set(costs.values())) == 5
    assert all(cost < 1 for cost in costs.values())


def test_over_http(tmp_path: Path) -> None:
    output = invoke(FILES[0], "--jobs", "1", "--no-frames", "--http", "--json", str(tmp_path / "out.json"))
    assert "over HTTP the same messages were forwarded as in process on 13 of 13 turns" in output
    data = json.loads((tmp_path / "out.json").read_text())
    assert [row["policy"] for row in data["policies"]] == ["untouched", "safe", "safe over HTTP"]
    assert data["http_agreement"]["num_same"] == 13


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--policy", "nonsense"], "no policy is named 'nonsense'"),
        (["--policy", "random-equal"], "needs one of ours beside it, whose cost it is to equal: 'safe'"),
        (["--policy", "balanced", "--policy", "random-equal"], "'safe'; --mode names another one"),
        (["--http", "--serve-args", "--redis 'x"], "No closing quotation"),
        (["--agent", "nobody"], "no conversation of agent 'nobody'"),
        (["none.jsonl"], "none.jsonl: No such file"),
        (["--http", "--url", "http://127.0.0.1:1"], "give one of them"),
        (["--url", "http://127.0.0.1:1"], "needs --recorder-port"),
        (["--restart-every", "3"], "need --http"),
        (["--http", "--cold"], "in process only"),
        (["--mode", "nonsense"], "'nonsense' is not one of"),
    ],
)
def test_bad_input_is_named(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(evaluate, ["replay", FILES[0], "--jobs", "1", *arguments])
    assert result.exit_code in (1, 2)
    assert problem in result.output
    assert "Traceback" not in result.output


def test_a_file_without_a_conversation_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert f"no conversation in {empty}" in invoke(str(empty), code=1)


def test_an_interruption_is_told_once(tmp_path: Path) -> None:
    """Workers, which an interrupt from the terminal reaches as well, say nothing of their own."""
    many = tmp_path / "many.jsonl"
    many.write_text(trace_file("opencode").read_text() * 400)
    command = [sys.executable, "-c", "from sluice.proxy.cli import main; main()", "eval", "replay", str(many)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while len(psutil.Process(process.pid).children()) < 2:  # the resource tracker, and a worker
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert said.endswith("Aborted!\n")


@pytest.mark.parametrize("agent", ["[/x]", "[bold]"])
def test_an_agents_name_may_hold_brackets(tmp_path: Path, agent: str) -> None:
    data = {**json.loads(trace_file("opencode").read_text()), "agent": agent}
    (tmp_path / "t.jsonl").write_text(json.dumps(data) + "\n")
    assert agent in invoke(str(tmp_path / "t.jsonl"), "--policy", "untouched", "--jobs", "1")


def test_a_file_that_cannot_be_written_costs_no_table(tmp_path: Path) -> None:
    with files_end_at(10):
        result = CliRunner().invoke(
            evaluate, ["replay", FILES[0], "--policy", "safe", "--jobs", "1", "--json", str(tmp_path / "x.json")]
        )
    assert isinstance(result.exception, OSError)
    assert "1 conversations" in result.output


def test_an_agent_of_a_conversation_with_half_an_emoji(tmp_path: Path) -> None:
    data = json.loads(trace_file("opencode").read_text())
    data["messages"][-2]["content"] += "\ud83d"
    (tmp_path / "t.jsonl").write_text(json.dumps(data) + "\n")
    chosen = ["--agent", "opencode", "--policy", "untouched", "--jobs", "1"]
    assert "1 conversations" in invoke(str(tmp_path / "t.jsonl"), *chosen)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_bad_line_is_named(tmp_path: Path, jobs: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(trace_file("opencode").read_text() + "{}\n")
    assert f"{file}:2: messages must be a list" in invoke(str(file), "--jobs", jobs, code=1)


def test_a_bypass_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def bypassed(self: Compressor, messages: list[bytes], *, mode: Mode, **more: object) -> Compressed:
        return Compressed(messages, mode, bypass="broken on purpose")

    monkeypatch.setattr(Compressor, "compress", bypassed)
    output = invoke(FILES[0], "--jobs", "1", "--policy", "safe")
    assert "safe: compression was bypassed on 13 of 13 turns: broken on purpose" in output


def test_data_goes_to_stdout_and_colour_is_left_out() -> None:
    command = [sys.executable, "-P", "-c", "from sluice.proxy.cli import main; main()", "eval", "replay", FILES[0]]
    ran = subprocess.run(
        [*command, "--policy", "safe", "--jobs", "1"],
        capture_output=True,
        text=True,
        check=True,
        env={"NO_COLOR": "1", "PATH": "", "FORCE_COLOR": ""},
    )
    assert "safe" in ran.stdout
    assert "\x1b[" not in ran.stdout
    assert ran.stderr == ""
