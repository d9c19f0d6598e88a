from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sluice.backend.errors import GivenUpError, VllmInstallError, VllmProcessError, WrongAnswerError
from sluice.backend.vllm import VllmServer, VllmSettings
from sluice.backend.vllm.environment import Environment
from tests.backend.vllm.conftest import is_alive

MODEL = "some/model"


def server(installed: Environment, events: list[str] | None = None, **settings: object) -> VllmServer:
    chosen = VllmSettings.model_validate({"model": MODEL, "drain_s": 5.0, "restart_delay_s": 0.0, **settings})
    return VllmServer(chosen, installed=installed, on_event=events.append if events is not None else None)


async def until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.02)


async def chat(url: str, content: str = "hi", **more: object) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        return await client.post(f"{url}/v1/chat/completions", json=body)


def pids(marker: Path) -> list[int]:
    return [int(pid) for pid in marker.read_text().split()] if marker.exists() else []


async def test_it_is_ready_after_a_right_answer_and_leaves_nothing(installed: Environment, tmp_path: Path) -> None:
    events: list[str] = []
    marker = tmp_path / "pids"
    async with server(installed, events, env={"STANDIN_PID_FILE": str(marker)}) as vllm:
        answer = await chat(vllm.base_url)
        assert answer.json()["choices"][0]["message"]["content"] == " fine"
        assert vllm.pid is not None
        assert len(pids(marker)) == 2
    assert any("--enable-prefix-caching" in line for line in events)
    assert not [pid for pid in pids(marker) if is_alive(pid)]
    with pytest.raises(httpx.ConnectError):
        await chat(vllm.base_url)


async def test_a_start_that_fails_is_quoted(installed: Environment) -> None:
    with pytest.raises(VllmProcessError, match=r"exit status 3 before it was ready.*\n(.*\n)*.*no GPU found"):
        await server(installed, env={"STANDIN_FAULT": "no GPU found"}).start()


@pytest.mark.parametrize(("first_wrong", "source"), [("1", "computed"), ("2", "from the prefix cache")])
async def test_a_build_that_answers_wrongly_is_refused(
    installed: Environment, tmp_path: Path, first_wrong: str, source: str
) -> None:
    marker = tmp_path / "pids"
    with pytest.raises(WrongAnswerError, match=rf"' banana' \({source}\), not with '150'"):
        await server(installed, env={"STANDIN_WRONG_FROM": first_wrong, "STANDIN_PID_FILE": str(marker)}).start()
    assert not [pid for pid in pids(marker) if is_alive(pid)]


async def test_a_start_that_takes_too_long_leaves_nothing(installed: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    with pytest.raises(VllmProcessError, match=r"not ready within 1 s"):
        await server(installed, start_timeout_s=1.0, env={"STANDIN_HANG": "1", "STANDIN_PID_FILE": str(marker)}).start()
    assert not [pid for pid in pids(marker) if is_alive(pid)]


async def test_a_cancelled_start_leaves_nothing(installed: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    start = asyncio.create_task(server(installed, env={"STANDIN_HANG": "1", "STANDIN_PID_FILE": str(marker)}).start())
    await until(lambda: len(pids(marker)) == 2, "not started")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not [pid for pid in pids(marker) if is_alive(pid)]


async def test_it_comes_back_on_its_port_after_a_kill(installed: Environment, tmp_path: Path) -> None:
    events: list[str] = []
    marker = tmp_path / "pids"
    async with server(installed, events, env={"STANDIN_PID_FILE": str(marker)}) as vllm:
        url, (first, helper) = vllm.base_url, pids(marker)
        os.kill(first, signal.SIGKILL)
        await until(lambda: vllm.num_restarts == 1, "not restarted")
        assert vllm.base_url == url
        assert (await chat(url)).status_code == 200
        assert not is_alive(helper), "what the killed run had started is left"
    assert any("vLLM ended with exit status -9" in each and "started again in 0 s" in each for each in events)
    assert "vLLM is ready again" in events


async def test_it_comes_back_after_a_kill_of_its_guard(installed: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    async with server(installed, env={"STANDIN_PID_FILE": str(marker)}) as vllm:
        first = pids(marker)
        assert vllm.pid is not None
        os.kill(vllm.pid, signal.SIGKILL)  # vLLM itself lives on, unguarded, and holds the port and the log
        await until(lambda: vllm.num_restarts == 1, "not restarted")
        assert not [pid for pid in first if is_alive(pid)], "what had lost its guard is left"
        assert (await chat(vllm.base_url)).status_code == 200


async def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text("#!/no/such/python\n")
    program.chmod(0o755)
    with pytest.raises(VllmProcessError, match=rf"exit status 127 before it was ready(.*\n)*cannot run {program}"):
        await server(Environment(tmp_path, is_cpu=False)).start()


async def test_a_folder_is_called_as_it_was_named(
    installed: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    events: list[str] = []
    async with server(installed, events, model="~/weights") as vllm:
        assert vllm.model == "~/weights"
    assert any(f"serve {tmp_path}/weights " in line and "--served-model-name ~/weights" in line for line in events)


async def test_one_that_keeps_crashing_is_given_up(installed: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    async with server(installed, env={"STANDIN_PID_FILE": str(marker)}, max_restarts=2) as vllm:
        for num_runs in (1, 2, 3):
            await until(lambda runs=num_runs: len(pids(marker)) == 2 * runs, "not restarted")
            if num_runs > 1:
                await until(lambda runs=num_runs: vllm.num_restarts == runs - 1, "not ready again")
            os.kill(pids(marker)[-2], signal.SIGKILL)
        with pytest.raises(GivenUpError, match=r"ended 3 times within 600 s and is given up(.*\n)*.*exit status -9"):
            await asyncio.wait_for(vllm.wait(), 30)


async def test_a_restart_that_fails_counts_as_a_crash(installed: Environment, tmp_path: Path) -> None:
    events: list[str] = []
    marker = tmp_path / "pids"
    async with server(installed, events, env={"STANDIN_PID_FILE": str(marker)}, max_restarts=2) as vllm:
        installed.program.write_text("#!/bin/sh\necho no memory left\nexit 3\n")
        os.kill(pids(marker)[0], signal.SIGKILL)
        with pytest.raises(GivenUpError, match=r"ended 3 times within 600 s and is given up(.*\n)*.*no memory left"):
            await asyncio.wait_for(vllm.wait(), 30)
        assert vllm.num_restarts == 0
    assert sum("ended with exit status 3 before it was ready" in event for event in events) == 1


async def test_the_command_serves_until_it_is_told_to_end(installed: Environment, tmp_path: Path) -> None:
    config, marker = tmp_path / "sluice.toml", tmp_path / "pids"
    config.write_text(
        f'[vllm]\nmodel = "{MODEL}"\nenv_dir = "{installed.folder}"\nenv = {{STANDIN_PID_FILE = "{marker}"}}\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sluice.backend.vllm.cli", "serve", "vllm", "--config", str(config), "--", "--seed", "7",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(60):
        url = (await process.stdout.readline()).decode().strip()
        assert (await chat(url)).status_code == 200
        process.terminate()
        _, told = await process.communicate()
    assert process.returncode == 0
    assert b"--seed 7" in told
    assert told.decode().splitlines()[-1] == "draining"
    assert not [pid for pid in pids(marker) if is_alive(pid)]


async def test_an_answer_in_progress_is_finished_at_the_end(installed: Environment) -> None:
    vllm = server(installed, env={"STANDIN_TOKEN_S": "0.1"})
    await vllm.start()
    body = {"model": MODEL, "messages": [], "stream": True, "max_tokens": 10}
    async with (
        httpx.AsyncClient(timeout=30, trust_env=False) as client,
        client.stream("POST", f"{vllm.base_url}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.aiter_lines()
        assert "fine0" in await anext(lines)
        stop = asyncio.create_task(vllm.stop())
        rest = [line async for line in lines if line]
        assert "fine9" in rest[-2]
        assert rest[-1] == "data: [DONE]"
        await stop


PARENT = """
import asyncio, sys
from pathlib import Path
from sluice.backend.vllm import VllmServer, VllmSettings
from sluice.backend.vllm.environment import Environment

async def main():
    settings = VllmSettings(model="m", drain_s=0.0, env={"STANDIN_PID_FILE": sys.argv[2]})
    await VllmServer(settings, installed=Environment(Path(sys.argv[1]), is_cpu=False)).start()
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_parent_leaves_no_orphan(installed: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(installed.folder), str(marker), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert (await parent.stdout.readline()).strip() == b"ready"
    assert all(is_alive(pid) for pid in pids(marker))
    parent.kill()
    await parent.wait()
    await until(lambda: not [pid for pid in pids(marker) if is_alive(pid)], "orphans are left")


async def test_what_is_not_installed_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(VllmInstallError, match=r"not installed in .*run: sluice backend install vllm"):
        await VllmServer(VllmSettings(model=MODEL, env_dir=tmp_path)).start()


@pytest.mark.parametrize(
    ("settings", "module", "requirement"),
    [
        ({"speculation": "suffix"}, "arctic_inference", "arctic-inference==0.1.1"),
        ({"distributed_executor_backend": "ray"}, "ray", "ray[cgraph]"),
        ({"kv_role": "kv_producer"}, "nixl", "nixl"),
        ({"kv_redis_url": "redis://cache"}, "lmcache", "lmcache"),
        ({"kv_offload_gib": 1.0, "kv_offload_backend": "lmcache"}, "lmcache", "lmcache"),
        ({"model": "weights.gguf"}, "vllm_gguf_plugin", "vllm-gguf-plugin"),
    ],
)
async def test_what_vllm_does_not_bring_is_named_before_it_starts(
    installed: Environment, settings: dict[str, object], module: str, requirement: str
) -> None:
    with pytest.raises(VllmInstallError, match=re.escape(f"vllm --with '{requirement}'")):
        await server(installed, **settings).start()
    (installed.folder / "lib" / "python3.12" / "site-packages" / module).mkdir(parents=True)
    async with server(installed, **settings) as vllm:
        assert vllm.pid is not None
