"""Against a real vLLM on the CPU: `make test-vllm`. Prints what it measures; nothing here checks speed.

The weights are the bundled small ones. Two servers are started, with speculation from the prompt.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio

from sluice.backend.errors import WrongAnswerError
from sluice.backend.metrics import BackendMetrics, read_metrics
from sluice.backend.vllm import VllmServer, VllmSettings
from sluice.eval.data import read_traces
from sluice.eval.traces import trace_file
from sluice.proxy.app import create_app
from sluice.proxy.settings import Settings
from sluice.proxy.upstreams import UpstreamSettings
from tests.backend.vllm.conftest import is_alive
from tests.proxy.servers import proxy, serving

ENV_DIR = os.environ.get("SLUICE_VLLM_ENV", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not ENV_DIR, reason="needs a real vLLM: make test-vllm"),
    pytest.mark.asyncio(loop_scope="module"),
]
TIMEOUT = httpx.Timeout(600.0)


def say(line: str) -> None:
    print(f"\n  {line}", end="", flush=True)


def settings(folder: Path, name: str, **more: object) -> VllmSettings:
    plain = {
        "env_dir": ENV_DIR, "served_model_name": "small", "num_threads": 1, "cpu_kv_gib": 1.0, "max_model_len": 8192,
        "block_size": 32, "speculation": "ngram", "num_speculative_tokens": 4, "restart_delay_s": 0.2, "drain_s": 5.0,
        "kv_events": f"ipc://{folder}/{name}",
    }  # fmt: skip
    return VllmSettings.model_validate({**plain, **more})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(folder: Path) -> AsyncIterator[tuple[VllmServer, VllmServer]]:
    """Two of them, started side by side."""
    began_s = time.monotonic()
    pair = VllmServer(settings(folder, "one")), VllmServer(settings(folder, "two"))
    try:
        await asyncio.gather(*(server.start() for server in pair))
        took_s = time.monotonic() - began_s
        say(f"two are ready after {took_s:.0f} s (each gave the known answer, computed and from its cache)")
        yield pair
    finally:
        await asyncio.gather(*(server.stop() for server in pair))


@pytest.fixture
def first(servers: tuple[VllmServer, VllmServer]) -> VllmServer:
    return servers[0]


@pytest.fixture
def second(servers: tuple[VllmServer, VllmServer]) -> VllmServer:
    return servers[1]


async def computed(server: VllmServer) -> BackendMetrics:
    return await read_metrics(server.base_url, timeout_s=30)


async def test_chat_plain_and_streamed_through_the_proxy(first: VllmServer) -> None:
    question = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    body = {"model": "small", "messages": question, "temperature": 0, "max_tokens": 24}
    async with proxy(first.base_url, provider="self-hosted") as client:
        plain = await client.post("/v1/chat/completions", json=body, timeout=TIMEOUT)
        assert plain.status_code == 200, plain.text
        text = plain.json()["choices"][0]["message"]["content"]
        assert "Paris" in text
        streamed = ""
        async with client.stream(
            "POST", "/v1/chat/completions", json={**body, "stream": True}, timeout=TIMEOUT
        ) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    streamed += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        assert streamed == text
        refused = await client.post("/v1/chat/completions", json={**body, "model": "other"}, timeout=TIMEOUT)
        assert refused.status_code == 404
        say(f"chat: {text!r}, streamed the same; an unknown model is refused with vLLM's own 404")


async def replay(
    client: httpx.AsyncClient, server: VllmServer, salt: str, headers: dict[str, str]
) -> list[tuple[int, int]]:
    """Play the recorded conversation; prompt tokens and cached ones of each turn."""
    (trace,) = read_traces(trace_file("claude-code"))
    turns = []
    for turn in trace.turns():
        messages = [as_plain(json.loads(trace.messages[index].raw)) for index in turn.history]
        # The salt keeps the runs' blocks apart, so that neither finds the other's.
        body = {"model": "small", "messages": messages, "temperature": 0, "max_tokens": 1, "cache_salt": salt}
        before = await computed(server)
        answer = await client.post("/v1/chat/completions", json=body, headers=headers, timeout=TIMEOUT)
        assert answer.status_code == 200, answer.text
        after = await computed(server)
        assert after.prompt_tokens is not None
        assert before.prompt_tokens is not None
        assert after.cached_tokens is not None
        assert before.cached_tokens is not None
        prompt = answer.json()["usage"]["prompt_tokens"]
        assert after.prompt_tokens - before.prompt_tokens == prompt
        turns.append((prompt, round(after.cached_tokens - before.cached_tokens)))
    return turns


def as_plain(message: dict[str, Any]) -> dict[str, Any]:
    """Parts of a content as one text: the small model's template takes no other."""
    if isinstance(message.get("content"), list):
        message["content"] = "\n".join(part.get("text", "") for part in message["content"])
    return message


async def test_a_frozen_prefix_is_reused(first: VllmServer) -> None:
    runs: dict[str, list[tuple[int, int]]] = {}
    async with httpx.AsyncClient(base_url=first.base_url, trust_env=False) as direct:
        runs["untouched"] = await replay(direct, first, "untouched", {})
    for mode in ("safe", "balanced"):
        async with proxy(first.base_url, provider="self-hosted") as client:
            runs[mode] = await replay(client, first, mode, {"x-sluice-mode": mode})
    say("a recorded conversation, turn by turn: prompt tokens (of them cached)")
    for name, turns in runs.items():
        say(f"{name:>10}: {' '.join(f'{prompt}({cached})' for prompt, cached in turns)}")
    for name, turns in runs.items():
        prompt, cached = (sum(figures) for figures in zip(*turns, strict=True))
        share = f"{cached:,} cached ({cached / prompt:.0%})"
        say(f"{name:>10}: {prompt:,} prompt tokens, {share}, {prompt - cached:,} computed")
        for (earlier, _), (_, found) in pairwise(turns):
            # All of the turn before but its last block, and the generation prompt behind it.
            assert found >= earlier - 2 * 32, f"{name}: a prefix of {earlier} tokens was found for {found}"
    totals = {name: sum(prompt - cached for prompt, cached in turns) for name, turns in runs.items()}
    assert totals["balanced"] <= totals["untouched"]


async def test_speculation_from_the_prompt_is_accepted(first: VllmServer) -> None:
    before = await computed(first)
    code = "".join(f"def area_{n}(width, height):\n    return width * height * {n}\n\n" for n in range(1, 12))
    body = {"model": "small", "prompt": code + "def area_12(", "temperature": 0, "max_tokens": 60}
    async with httpx.AsyncClient(base_url=first.base_url, trust_env=False, timeout=TIMEOUT) as client:
        text = (await client.post("/v1/completions", json=body)).json()["choices"][0]["text"]
    after = await computed(first)
    assert after.draft_tokens is not None
    assert after.accepted_tokens is not None
    drafted = after.draft_tokens - (before.draft_tokens or 0)
    accepted = after.accepted_tokens - (before.accepted_tokens or 0)
    assert accepted > 0
    share = f"{accepted:.0f} of {drafted:.0f} drafted tokens accepted ({accepted / drafted:.0%})"
    say(f"ngram speculation on repeated code: {share}")
    say(f"it wrote {text.splitlines()[0]!r}")


async def test_what_matters_is_read_from_its_metrics(first: VllmServer) -> None:
    found = (await computed(first)).as_json()
    assert not [name for name, value in found.items() if value is None], found
    say("metrics: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items() if value is not None))


async def until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.2)


def group(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    return [int(one) for one, leader in (line.split() for line in listed.splitlines()) if int(leader) == pid]


async def test_two_replicas_and_a_killed_one(first: VllmServer, second: VllmServer, folder: Path) -> None:
    replicas = (first.base_url, second.base_url)
    upstream = UpstreamSettings.model_validate(
        {
            "name": "fleet",
            "preset": "vllm",
            "replicas": replicas,
            "kv_events": [f"ipc://{folder}/{n}" for n in ("one", "two")],
        }
    )
    app = create_app(Settings(upstreams=(upstream,), compress_timeout_s=30.0))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False) as client:

        async def ask(name: str, turn: int) -> int:
            messages = [
                {
                    "role": "user" if part % 2 == 0 else "assistant",
                    "content": f"{name}, part {part}: " + "some words " * 60,
                }
                for part in range(2 * turn + 1)
            ]
            body = {"model": "small", "messages": messages, "temperature": 0, "max_tokens": 4}
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        names = [f"conversation {number}" for number in range(4)]
        before = [await computed(server) for server in (first, second)]
        cached = [[await ask(name, turn) for name in names] for turn in range(3)]
        after = [await computed(server) for server in (first, second)]
        shares = [(a.prompt_tokens or 0) - (b.prompt_tokens or 0) for a, b in zip(after, before, strict=True)]
        by_turn = [sum(found) for found in cached]
        say(f"two replicas: {shares[0]:.0f} and {shares[1]:.0f} prompt tokens; cached by turn {by_turn}")
        assert all(shares), "both are used"
        assert all(found > 0 for found in cached[2]), "each conversation went where its prefix is"
        assert first.pid is not None
        victims = group(first.pid)
        flight = [asyncio.create_task(ask(name, 3)) for name in names for _ in range(2)]
        await asyncio.sleep(0.5)
        os.kill(max(victims), signal.SIGKILL)  # its engine, in the middle of their prompts
        for pid in victims:
            if pid != first.pid and is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        outcomes = await asyncio.gather(*flight)
        say(f"one killed with {len(flight)} requests on the way: {len(outcomes)} answered")
        began_s = time.monotonic()
        await until(lambda: first.num_restarts == 1)
        say(f"killed with SIGKILL, ready again after {time.monotonic() - began_s:.0f} s on the same port")
        assert [await ask(name, 3) for name in names]
    assert not [pid for pid in victims if is_alive(pid)]


async def test_a_drained_server_leaves_nothing(second: VllmServer) -> None:
    assert second.pid is not None
    members = group(second.pid)
    await second.stop()
    assert not [pid for pid in members if is_alive(pid)]
    say(f"stopped: none of its {len(members)} processes is left")


async def test_a_wrong_answer_is_refused(folder: Path) -> None:
    """Asked what it cannot answer as it should, it is not let through, and nothing of it is left."""
    members: list[int] = []

    def note(line: str) -> None:
        if "Application startup complete" in line:
            assert server.pid is not None
            members.extend(group(server.pid))

    server = VllmServer(
        settings(folder, "three", check_prompt="One, two, three,", check_answer="seventeen"), on_event=note
    )
    with pytest.raises(WrongAnswerError, match=r"continues 'One, two, three,' .*, not with 'seventeen'") as refused:
        await server.start()
    assert len(members) > 2, "the guard, vLLM, and its engine were there"
    assert not [pid for pid in members if is_alive(pid)]
    say(f"refused: {str(refused.value).partition(':')[0]}")


async def test_sluice_serve_runs_it(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "four").model_dump(mode="json", exclude_unset=True, exclude={"kv_events"})
    lines = [f"{key} = {json.dumps(value)}" for key, value in chosen.items()]
    config = tmp_path / "sluice.toml"
    config.write_text("port = 0\n[vllm]\n" + "\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from sluice.proxy.cli import main; main()",
        "serve", "--backend", "vllm", "--config", str(config), "--", "--seed", "7",
        stderr=subprocess.PIPE,
    )  # fmt: skip
    children: list[int] = []
    try:
        assert process.stderr is not None
        async with asyncio.timeout(900):
            while b"sluice listens on " not in (line := await process.stderr.readline()):
                assert line, "it ended before it listened"
        url = line.decode().split("sluice listens on ")[1].split()[0]
        body = {"model": "small", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert len(children) > 2, "the guard, vLLM, and its engine"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await until(lambda: not [pid for pid in children if is_alive(pid)], 60)
    say(f"sluice serve --backend vllm: serves, and killed with SIGKILL leaves none of its {len(children)} processes")
