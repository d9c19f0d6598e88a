"""Real agents through the real proxy, before a scripted model. They run where SLUICE_TEST_AGENTS is set."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from sluice.proxy.wire import WireName
from tests.agents.agents import CODEX, MINI, OPENCODE, Agent, claude_code, run
from tests.agents.model import ScriptedModel, slips
from tests.agents.script import FINAL, NEW, SCRIPT, make_repository
from tests.proxy.servers import ScriptedUpstream

pytestmark = [
    pytest.mark.agents,
    pytest.mark.skipif(not os.environ.get("SLUICE_TEST_AGENTS"), reason="SLUICE_TEST_AGENTS is not set"),
    pytest.mark.xdist_group("agents"),
]
AGENTS: dict[str, Callable[[Path], Agent]] = {
    "claude-code": claude_code,
    "codex": lambda _: CODEX,
    "opencode": lambda _: OPENCODE,
    "mini-swe-agent": lambda _: MINI,
}
_LISTENING = re.compile(r"http://127\.0\.0\.1:(\d+)")


@asynccontextmanager
async def proxy_process(folder: Path, upstream: str, wire: WireName) -> AsyncIterator[tuple[str, Path]]:
    """The proxy as users start it, before an upstream that speaks one wire format; its URL and its log."""
    settings, log = folder / "sluice.toml", folder / "proxy.log"
    settings.write_text(
        f'[[upstreams]]\nname = "scripted"\norigin = "{upstream}"\nwires = ["{wire}"]\ncredential = "client"\n'
    )
    code = "import sys; from sluice.proxy.cli import main; main(sys.argv[1:])"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, "serve", "--port", "0", "--config", str(settings)), stdout=file, stderr=file
        )
    try:
        async with asyncio.timeout(60):
            while (found := _LISTENING.search(log.read_text())) is None:
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{found[1]}", log
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def counter(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} ([\d.e+]+)$", metrics, re.MULTILINE)
    assert found is not None, metrics
    return float(found[1])


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("claude-code", WireName.MESSAGES),
        ("claude-code", WireName.CHAT),
        ("codex", WireName.RESPONSES),
        ("codex", WireName.CHAT),
        ("opencode", WireName.CHAT),
        ("opencode", WireName.MESSAGES),
        ("mini-swe-agent", WireName.CHAT),
    ],
)
async def test_an_agent_works_through_the_proxy_and_its_prefixes_hold(
    name: str, spoken: WireName, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    repository = tmp_path / "repository"
    home = tmp_path / "home"
    home.mkdir()
    make_repository(repository)
    agent = AGENTS[name](repository)
    assert agent.binary.exists(), f"{agent.binary} is missing: make test-agents installs it"
    model = ScriptedModel(agent.call, agent.last_call)
    upstream.answer = model.answer
    async with proxy_process(tmp_path, upstream.url, spoken) as (url, log):
        ended = await run(agent, repository, home, url)
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(f"{url}/metrics")).text
        logged = log.read_text()
    told = f"{ended.output[-2000:]}\n{ended.errors[-2000:]}\n{logged[-2000:]}"
    assert ended.code == 0, told
    assert FINAL in ended.output, told
    assert NEW in (repository / "app" / "alpha.py").read_text()
    assert len(model.requests) == len(SCRIPT) + 1, told
    num_epochs = len(re.findall(r"\bepoch=\w", logged))
    slipped = slips(model.requests)
    tokens_in, tokens_out = counter(metrics, "sluice_tokens_in_total"), counter(metrics, "sluice_tokens_out_total")
    num_markers = model.requests[-1][1].count(b"[sluice ")
    print(
        f"\n{agent.name} {agent.wire}->{spoken}: {len(model.requests)} turns, {model.num_others} other requests, "
        f"{len(slipped)} slips, {num_epochs} epochs, {num_markers} markers, "
        f"{tokens_in:.0f} -> {tokens_out:.0f} tokens ({tokens_out / tokens_in:.2f})"
    )
    assert len(slipped) <= num_epochs
    assert num_markers > 0
    assert tokens_out < tokens_in
