from __future__ import annotations

import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from sluice.eval.bench.cli import proxy
from sluice.eval.bench.load import QUIET_S, send_all
from sluice.eval.bench.workload import sized, standard, turns
from sluice.eval.child import ServerProcess
from sluice.proxy.meter.meter import Meter


def test_all_systems_are_measured_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.eval.bench.load.QUIET_S", 0.0)
    out = tmp_path / "bench.json"
    arguments = [
        "--requests",
        "4",
        "--rounds",
        "1",
        "--workload",
        "200 kB",
        "--workload",
        "at 100 ",
        "--json",
        str(out),
    ]
    result = CliRunner().invoke(proxy, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["rows"]
    systems = ["direct", "bare relay", "FastAPI + httpx", "sluice off", "sluice safe", "sluice balanced"]
    assert [row["system"] for row in rows] == systems * 2
    assert all(row["requests_per_s"] > 0 for row in rows)
    assert all((row["cpu_ms"] is None) == (row["system"] == "direct") for row in rows)
    assert all(system in result.output for system in systems)


def test_a_proxy_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(proxy, ["--url", "other"])
    assert result.exit_code == 2
    assert "'other' is not of the form NAME=URL" in result.output


def test_a_proxy_that_does_not_answer_is_named_before_any_is_measured() -> None:
    result = CliRunner().invoke(proxy, ["--url", "other=http://127.0.0.1:9", "--requests", "4", "--rounds", "1"])
    assert result.exit_code == 1
    assert "Error: http://127.0.0.1:9 cannot be reached" in result.output
    assert "round 0" not in result.output


LATE = """
import asyncio, sys, time
from sluice.eval.bench import stage

class Late(stage._Upstream):
    def data_received(self, data):
        super().data_received(data)
        if data.startswith(b"POST"):
            asyncio.get_running_loop().call_later(0.5, work)

def work():
    ends_s = time.process_time() + 0.1
    while time.process_time() < ends_s:
        pass

asyncio.run(stage._serve(Late, int(sys.argv[1])))
"""


async def test_what_a_server_does_behind_the_requests_backs_is_counted() -> None:
    command = [sys.executable, "-c", LATE, "{port}"]
    async with ServerProcess(command, name="late", ready_path="/") as server:
        taken = await send_all(server.url, sized(2_000, 4, "x"), {}, server.pid)
    assert taken.cpu_ms is not None
    assert 100 <= taken.cpu_ms < 120, "that of the unmeasured request is done before"


def test_the_meter_has_begun_before_a_server_is_taken_for_idle() -> None:
    pause_s = inspect.signature(Meter).parameters["pause_s"].default
    assert pause_s < QUIET_S


def test_turns_of_a_workload_extend_each_other() -> None:
    workload = turns(100, 3, "t")
    sent = [json.loads(body)["messages"] for body in workload.bodies]
    assert all(after[: len(before)] == before for before, after in pairwise(sent))
    assert [len(messages) for messages in sent] == [101, 103, 105, 107]


@pytest.mark.parametrize("num", [4, 20])
def test_workloads_differ_in_name_and_measure_something(num: int) -> None:
    workloads = list(standard(num, "x"))
    assert len({workload.name for workload in workloads}) == len(workloads)
    assert all(len(workload.bodies) > workload.num_warm for workload in workloads)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workload", "none"], "'turn at 100 messages'"),
        (["--json", "none/out.json"], "there is no folder"),
        (["--url", "a=b"], "'a=b' is not of the form NAME=URL"),
        (["--url", "a=https://host"], "TLS is not spoken"),
        (["--url", "a=http://localhost:abc"], "'a=http://localhost:abc' is not of the form NAME=URL"),
        (["--url", "a=http://localhost:1/prefix"], "no path"),
    ],
)
def test_what_would_come_to_nothing_is_refused_before_the_work(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(proxy, arguments)
    assert result.exit_code == 2
    assert says in result.output
