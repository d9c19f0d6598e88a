from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sluice.proxy.connect.check import check
from sluice.proxy.meter.cli import stats
from sluice.proxy.wire import WireName
from tests.proxy.meter.test_metering import ask, with_usage
from tests.proxy.servers import ScriptedUpstream, proxy, reading_twice


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, stats, list(arguments))


async def test_what_was_spent_is_shown(upstream: ScriptedUpstream) -> None:
    upstream.answer = with_usage()
    async with proxy(upstream.url) as client:
        await ask(client, reading_twice())
        shown = await run("--url", str(client.base_url))
        as_json = await run("--url", f"{client.base_url}/v1", "--json", "--days", "1")
    assert shown.exit_code == 0, shown.output
    assert "1 requests, 0 of them failed" in shown.stdout
    assert "gpt-5.2" in shown.stdout
    assert "saved" in shown.stdout
    assert json.loads(as_json.stdout)["totals"]["num_turns"] == 1


async def test_before_the_first_request_it_says_what_to_do(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        shown = await run("--url", str(client.base_url))
    assert "sluice connect" in shown.stdout


async def test_who_is_not_let_in_is_told_why(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxy(upstream.url, keys_file=tmp_path / "keys.json") as client:
        shown = await run("--url", str(client.base_url))
        wrong = await run("--url", str(client.base_url), "--key", "nonsense")
    assert shown.exit_code == wrong.exit_code == 1
    assert "asks for a key: give one of its own with --key" in shown.output
    assert "does not know the key" in wrong.output


async def test_what_is_no_url_is_refused() -> None:
    refused = await run("--url", "nonsense")
    assert refused.exit_code == 2
    assert "'nonsense' is no http:// or https:// URL" in refused.output


async def test_no_proxy_at_all(upstream: ScriptedUpstream) -> None:
    gone = await run("--url", "http://127.0.0.1:1")
    assert gone.exit_code == 1
    assert "sluice serve" in gone.output
    other = await run("--url", upstream.url)
    assert other.exit_code == 1


@pytest.mark.parametrize("through", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
async def test_no_proxy_of_the_environment_stands_before_this_machine(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", through)
    async with proxy(upstream.url) as client:
        shown = await run("--url", str(client.base_url))
        checked = await asyncio.to_thread(check, str(client.base_url).rstrip("/"), WireName.CHAT, "m", {})
        # Another machine may lie behind it; what is wrong with it then is one line.
        remote = await run("--url", "http://sluice.invalid")
        elsewhere = await asyncio.to_thread(check, "http://sluice.invalid", WireName.CHAT, "m", {})
    assert shown.exit_code == 0, shown.output
    assert checked.is_good, checked.says
    assert remote.exit_code == 1
    assert remote.output.startswith("Error: ")
    assert not elsewhere.is_good
