"""Servers that are started for an evaluation: clean settings, and nothing of them left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from sluice.eval.child import ServerProcess
from sluice.eval.traces import trace_file

SLUICE = [sys.executable, "-P", "-c", "from sluice.proxy.cli import main; main()"]
SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid(), "env": dict(os.environ)}).encode())

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def server(tmp_path: Path) -> str:
    """A command line that serves on `{port}`, and tells its process and its environment."""
    (tmp_path / "server.py").write_text(SERVER)
    return f"{shlex.quote(sys.executable)} {tmp_path / 'server.py'} {{port}}"


def asked(process: ServerProcess) -> dict[str, object]:
    with urllib.request.urlopen(process.url, timeout=20) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["told", "restarted", "leader died"])
async def test_what_a_server_has_started_ends_with_it(server: str, how: str) -> None:
    process = ServerProcess(["sh", "-c", f"{server} & wait"], name="it", ready_path="/")
    async with process:
        pids = [(await asyncio.to_thread(asked, process))["pid"], process.pid]
        if how == "restarted":
            await process.restart()
            assert (await asyncio.to_thread(asked, process))["pid"] not in pids
        elif how == "leader died":
            os.kill(process.pid or 0, signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
            await asyncio.to_thread(wait_until_gone, pids)
    await asyncio.to_thread(wait_until_gone, pids)


async def test_settings_of_the_user_are_not_handed_on(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SLUICE_HOLDOUT",
        "sluice_redis_url",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "SLUICE_CACHE_DIR",
        "HOME_OF_TESTS",
    ):
        monkeypatch.setenv(name, "inherited")
    env = {"SLUICE_UPSTREAM": "asked for"}
    async with ServerProcess(shlex.split(server), name="it", ready_path="/", env=env) as process:
        seen = (await asyncio.to_thread(asked, process))["env"]
    assert isinstance(seen, dict)
    assert not {"SLUICE_HOLDOUT", "sluice_redis_url", "OTEL_EXPORTER_OTLP_ENDPOINT"} & seen.keys()
    assert (seen["SLUICE_UPSTREAM"], seen["HOME_OF_TESTS"]) == ("asked for", "inherited")
    assert seen["SLUICE_CACHE_DIR"] == "inherited"  # where models lie is no setting of a proxy


def ended(command: list[str], how: signal.Signals, *, is_far: str) -> tuple[int, str]:
    """Run a command until a process below it has `is_far` in its command line, and end it; status and stderr."""
    with subprocess.Popen(
        [*SLUICE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            below: list[psutil.Process] = []
            while not any(is_far in part for each in below for part in each.cmdline()):
                assert process.poll() is None
                time.sleep(0.02)
                below = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(how)
            _, said = process.communicate(timeout=60)
            wait_until_gone([each.pid for each in below])
        finally:
            process.kill()
            for each in below:
                if each.is_running():
                    each.kill()
    return process.returncode, said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["replay", "compare"])
def test_a_proxy_ends_with_the_evaluation(tmp_path: Path, command: str, how: signal.Signals) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text(trace_file("opencode").read_text() * 50)
    more = {"replay": ["--policy", "untouched", "--http"], "compare": ["--policy", "mask-10", "--equal-to", "safe"]}
    status, said = ended(["eval", command, str(many), "--jobs", "1", *more[command]], how, is_far="--upstream")
    assert (status, said) == (1, "Aborted!\n")


def test_workers_end_with_the_evaluation(tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text(trace_file("opencode").read_text() * 400)
    status, _ = ended(["eval", "replay", str(many), "--jobs", "2"], signal.SIGTERM, is_far="spawn_main")
    assert status != 0
