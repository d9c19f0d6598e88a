"""`sluice serve --backend vllm`, with a stand-in that speaks as vLLM does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.backend.vllm.conftest import is_alive, write_standin

COMMAND = [sys.executable, "-c", "from sluice.proxy.cli import main; main()", "serve"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a vLLM that is the stand-in."""
    installed = write_standin(tmp_path / "env")
    marker = json.dumps(str(tmp_path / "pids"))
    file = tmp_path / "sluice.toml"
    file.write_text(
        f'port = 0\n[vllm]\nenv_dir = "{installed.folder}"\ndrain_s = 5\nenv = {{ STANDIN_PID_FILE = {marker} }}\n'
    )
    return file


def pids(config: Path) -> list[int]:
    return [int(pid) for pid in (config.parent / "pids").read_text().split()]


def wait_gone(found: list[int]) -> None:
    deadline_s = time.monotonic() + 30
    while alive := [pid for pid in found if is_alive(pid)]:
        assert time.monotonic() < deadline_s, f"still there: {alive}"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_serves_and_leaves_nothing(config: Path, how: signal.Signals) -> None:
    arguments = ["--backend", "vllm", "--model", "some/model", "--config", str(config), "--", "--seed", "7"]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "sluice listens on " in line:
                break
        text = "".join(lines)
        assert "starting vLLM" in text
        assert "--seed 7" in text
        assert "sluice listens on " in text, text
        url = text.split("sluice listens on ")[1].split()[0]
        body = {"model": "some/model", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
        assert answer.json()["choices"][0]["message"]["content"] == " fine"
        assert httpx.get(f"{url}/readyz", timeout=60, trust_env=False).status_code == 200
        found = pids(config)
        process.send_signal(how)
        process.stderr.read()
    wait_gone(found)
    assert process.returncode == (0 if how is signal.SIGTERM else -how)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--backend", "vllm"], {"STANDIN_WRONG_FROM": "1"}, "computes wrongly"),
        (["--backend", "vllm"], {"STANDIN_FAULT": "no driver"}, "no driver"),
        (["--backend", "vllm"], {"SLUICE_VLLM": '{"block_siz": 1}'}, "unknown setting 'vllm.block_siz'"),
        (["--backend", "embedded", "--", "--seed", "7"], {}, "only vLLM takes arguments of its own"),
    ],
)
def test_a_start_that_fails_says_why(
    config: Path, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    before, _, after = " ".join(arguments).partition(" -- ")
    options = [*before.split(), "--config", str(config), "--model", "m", *(["--", *after.split()] if after else [])]
    done = subprocess.run(
        [*COMMAND, *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_backend_that_is_given_up_is_said(config: Path) -> None:
    config.write_text(config.read_text().replace("[vllm]\n", "[vllm]\nmax_restarts = 0\n"))
    arguments = ["--backend", "vllm", "--model", "some/model", "--config", str(config)]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "sluice listens on " in line:
                break
        url = line.split("sluice listens on ")[1].split()[0]
        os.kill(pids(config)[0], signal.SIGKILL)
        said = next(line for line in process.stderr if "backend_given_up" in line)
        body = {"model": "some/model", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
        health = httpx.get(f"{url}/healthz", timeout=60, trust_env=False)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert "backend=vllm" in said
    assert "given up" in said
    assert "503 until sluice serve is started again" in said
    assert answer.status_code == 503
    assert "retry-after" not in answer.headers
    assert "the vllm backend ended too often and was given up" in answer.json()["error"]["message"]
    assert health.json() == {"status": "ok", "backend": "given up"}
