"""The proxy with a network that scores its lines, here and elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from sluice.proxy.errors import ConfigError
from sluice.proxy.load_settings import load_settings
from sluice.proxy.scorer.cli import scorer
from tests.compressor.scoring.neural.tiny import write_model, write_processor
from tests.proxy.scorer.test_remote import Process
from tests.proxy.servers import ScriptedUpstream, proxy

LONG_S = 30.0
Json = dict[str, Any]


@pytest.fixture
def process() -> Any:
    found = Process()
    yield found
    found.kill()


def conversation(num_results: int) -> list[Json]:
    messages: list[Json] = [{"role": "user", "content": "make compute return integers"}]
    for number in range(num_results):
        text = "\n".join(f"    value_{number}_{line} = compute({line}, scale={line * 7})" for line in range(30))
        function = {"name": "Read", "arguments": json.dumps({"file_path": f"src/part_{number}.py"})}
        tool_call = {"id": f"call_{number}", "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [tool_call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": text},
        ]
    return messages


async def send(client: httpx.AsyncClient, num_results: int) -> None:
    body = {"model": "gpt-4o", "messages": conversation(num_results)}
    answer = await client.post(
        "/v1/chat/completions", json=body, headers={"x-sluice-mode": "aggressive", "authorization": "Bearer k"}
    )
    assert answer.status_code == 200
    assert "x-sluice-bypass" not in answer.headers


async def counted(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    found = re.findall(r'sluice_scorer_results_total\{outcome="(\w+)"\} ([\d.]+)', text)
    return {outcome: float(number) for outcome, number in found if float(number)}


async def until_scored(client: httpx.AsyncClient, num_results: int) -> int:
    """Go on with a conversation until a result is scored by the network; how many there were."""
    ends_s = time.monotonic() + LONG_S
    while "scored" not in await counted(client):
        assert time.monotonic() < ends_s
        num_results += 1
        await send(client, num_results)
        await asyncio.sleep(0.05)
    return num_results


async def test_lines_are_scored_elsewhere_and_a_lost_scorer_costs_no_request(
    upstream: ScriptedUpstream, process: Process, tmp_path: Path
) -> None:
    process.start()
    async with proxy(
        upstream.url, scorer=process.url, scorer_model=write_processor(tmp_path), scorer_deadline_ms=10_000
    ) as client:
        num = await until_scored(client, 0)
        process.kill()
        for _ in range(3):
            num += 1
            await send(client, num)
        assert (await counted(client))["down"] >= 3
        # What was forwarded once was forwarded again, whoever decided it.
        bodies = [exchange.json["messages"] for exchange in upstream.exchanges if exchange.path.endswith("completions")]
        for earlier, later in itertools.pairwise(bodies):
            assert later[: len(earlier)] == earlier


async def test_a_proxy_whose_scorer_never_was_there_serves(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxy(upstream.url, scorer="http://127.0.0.1:9", scorer_model=write_processor(tmp_path)) as client:
        await send(client, 2)
        assert set(await counted(client)) == {"loading"}


async def test_without_a_model_features_score(
    upstream: ScriptedUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "card.json").write_text("{broken")
    async with proxy(upstream.url, scorer="neural", scorer_model=tmp_path) as client:
        await send(client, 2)
        assert await counted(client) == {}
    assert "scorer_unavailable" in caplog.text
    assert "card.json" in caplog.text


async def test_with_a_broken_adapter_features_score(
    upstream: ScriptedUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_processor(tmp_path)
    (folder / "adapter.safetensors").write_bytes(b"nonsense")
    async with proxy(upstream.url, scorer="neural", scorer_model=folder) as client:
        ends_s = time.monotonic() + LONG_S
        num = 0
        while "down" not in await counted(client):
            assert time.monotonic() < ends_s
            num += 1
            await send(client, num)
            await asyncio.sleep(0.05)
        assert not {"scored", "kept"} & set(await counted(client))
    assert "cannot be used" in caplog.text


@pytest.mark.engine
async def test_lines_are_scored_in_the_proxy(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    async with proxy(
        upstream.url, scorer="neural", scorer_model=folder, scorer_device="cpu", scorer_deadline_ms=10_000
    ) as client:
        await until_scored(client, 0)


@pytest.mark.engine
def test_a_scorer_of_its_own_process_loads_a_model_and_says_so(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    command = [sys.executable, "-m", "sluice.proxy.scorer.cli", "serve", "--port", "0", "--device", "cpu"]
    with subprocess.Popen([*command, "--model", str(folder)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            url = re.search(r"scorer listens at (http://\S+)", line)
            assert url is not None, line
            ends_s = time.monotonic() + LONG_S
            with httpx.Client(base_url=url[1], trust_env=False) as client:
                while (answer := client.get("/healthz")).status_code == 503:
                    assert time.monotonic() < ends_s
                    time.sleep(0.1)
            assert answer.json()["name"] == "tiny"
        finally:
            process.terminate()


def test_a_scorer_without_torch_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.proxy.doctor.installation.find_spec", lambda name: None)
    done = CliRunner().invoke(scorer, ["serve", "--port", "0"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: torch")
    assert "not installed; run: pip install 'sluicegate[scorer]'" in done.output


def test_a_scorer_without_a_model_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sluice.proxy.scorer.cli", "serve", "--model", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "card.json" in done.stderr


@pytest.mark.engine
def test_a_scorer_whose_model_cannot_be_loaded_ends_and_says_why(tmp_path: Path) -> None:
    folder = write_processor(tmp_path)  # a card, and no weights behind it
    command = [sys.executable, "-m", "sluice.proxy.scorer.cli", "serve", "--port", "0", "--device", "cpu"]
    done = subprocess.run([*command, "--model", str(folder)], capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 1
    assert "scorer listens at" in done.stderr
    assert f"Error: the model in {folder} cannot be used: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("value", ["nueral", "http://", "http://host/path", "ftp://host", "vllm+nonsense"])
def test_a_scorer_that_is_none_is_named(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(value))):
        load_settings({"scorer": value, "upstream": "http://up"})
    with pytest.raises(ConfigError, match="is no directory"):
        load_settings({"scorer_model": str(tmp_path / "absent"), "upstream": "http://up"})
