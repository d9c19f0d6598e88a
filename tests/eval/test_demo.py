"""The demo from outside: the real model, the real proxy, real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from sluice.backend.free_port import free_port

COMMAND = [sys.executable, "-P", "-c", "from sluice.proxy.cli import main; main()", "demo"]
TIMEOUT_S = 240


def test_a_taken_port_is_told_before_anything_is_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ran.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.engine
def test_plays_serves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "stderr"
    with log.open("wb") as errors:
        demo = subprocess.Popen(
            [*COMMAND, "--port", str(port), "--max-turns", "2"], stdout=subprocess.PIPE, stderr=errors
        )
    try:
        wait_for(lambda: "until Ctrl-C" in log.read_text(errors="replace"), demo, log)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(
                {
                    "model": "SmolLM2-135M-Instruct",
                    "max_tokens": 2,
                    "messages": [{"role": "user", "content": "Hi"}],
                }
            ).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.loads(answer.read())["choices"][0]["message"]["role"] == "assistant"
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) >= 2  # model and proxy
        os.kill(demo.pid, signal.SIGTERM)
        output, _ = demo.communicate(timeout=30)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 0
    assert not still_running(children)
    table = output.decode()
    assert "2 turns, mode safe" in table
    assert re.search(r"billed input, anthropic prices: ×\d\.\d\d of untouched", table)
    assert "turns that rewrote what had been sent: 0" in table


@pytest.mark.engine
def test_interrupted_while_the_model_starts_it_leaves_nothing_behind_either(tmp_path: Path) -> None:
    log = tmp_path / "stderr"
    with log.open("wb") as errors:
        demo = subprocess.Popen([*COMMAND, "--port", str(free_port())], stdout=subprocess.PIPE, stderr=errors)
    try:
        wait_for(lambda: psutil.Process(demo.pid).children(), demo, log)
        children = psutil.Process(demo.pid).children(recursive=True)
        os.kill(demo.pid, signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 1, "nothing was played"
    assert output == b""
    assert "ended all that was started" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not still_running(children)


def still_running(children: list[psutil.Process]) -> list[psutil.Process]:
    return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def wait_for(is_so, demo: subprocess.Popen[bytes], log: Path) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert demo.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.1)
