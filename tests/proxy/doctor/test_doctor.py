from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sluice.proxy.doctor.cli import doctor
from sluice.proxy.doctor.configuration import examine_environment, examine_settings, read_settings
from sluice.proxy.doctor.finding import Finding, Verdict
from sluice.proxy.doctor.installation import EXTRAS, examine_installation
from sluice.proxy.doctor.reach import examine_port, examine_redis, examine_upstream
from sluice.proxy.settings import Settings
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy, serving


def by_subject(findings: Any) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLUICE_UPSTREAM", raising=False)


def test_an_extra_that_is_missing_comes_with_the_command_that_brings_it() -> None:
    found = by_subject(examine_installation(lambda module: module not in ("torch", "mcp")))
    assert found["extra search"].verdict is Verdict.NOTE
    assert "lacks mcp" in found["extra search"].says
    assert found["extra engine"].remedy == "pip install 'sluicegate[engine]'"
    assert found["extra eval"].verdict is Verdict.GOOD
    assert "default weights" not in found


def test_the_extras_are_the_distributions_own() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert set(EXTRAS) <= set(project["project"]["optional-dependencies"])


def test_settings_that_cannot_be_used_are_named_with_their_source(tmp_path: Path) -> None:
    file = tmp_path / "sluice.toml"
    file.write_text("port = 'ninety'\n")
    settings, findings = read_settings(None)
    assert settings is None
    assert findings[0].verdict is Verdict.BAD
    assert "port" in findings[0].says
    assert "sluice.toml" in findings[0].remedy


def test_settings_that_do_not_do_what_they_seem_to(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("{}")
    keys.chmod(0o644)
    settings = Settings(upstream="https://api.anthropic.com", ttl_s=60, keys_file=keys, record=tmp_path)
    found = by_subject(examine_settings(settings))
    assert found["ttl_s"].verdict is Verdict.BAD
    assert found["keys_file"].verdict is Verdict.BAD
    assert found["record"].verdict is Verdict.NOTE
    assert "upstream" not in found
    assert [*examine_environment({"HTTPS_PROXY": "http://127.0.0.1:1"}, settings)]
    assert not [*examine_environment({}, settings)]


async def test_a_port_of_an_ipv6_address_is_looked_at_as_serve_would() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        found = await examine_port("::1", port)
        assert found.says == f"another program listens on [::1]:{port}"
    assert (await examine_port("::1", port)).says == f"[::1]:{port} is free"


async def test_a_port_is_free_ours_or_anothers(upstream: ScriptedUpstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "is free" not in (await examine_port("127.0.0.1", port)).says
    assert (await examine_port("127.0.0.1", port)).verdict is Verdict.GOOD
    other = int(upstream.url.rpartition(":")[2])
    assert "another program" in (await examine_port("127.0.0.1", other)).says
    async with proxy(upstream.url) as client:
        ours = await examine_port("127.0.0.1", client.base_url.port or 0)
    assert "a proxy runs" in ours.says
    assert ours.verdict is Verdict.GOOD


@pytest.mark.redis
async def test_redis_that_answers_and_redis_that_does_not(redis_url: str) -> None:
    found = by_subject(await examine_redis(Settings(redis_url=redis_url)))
    assert found["redis"].verdict is Verdict.GOOD
    assert found["redis memory"].verdict is Verdict.NOTE
    gone = await examine_redis(Settings(redis_url="redis://127.0.0.1:1/0"))
    assert [finding.verdict for finding in gone] == [Verdict.BAD]


async def test_an_upstream_that_answers_is_broken_or_is_not_there(upstream: ScriptedUpstream) -> None:
    async def broken(exchange: Exchange) -> None:
        await exchange.whole(b"{}", 503)

    (named,) = Settings(upstream=upstream.url).all_upstreams
    assert (await examine_upstream(named)).verdict is Verdict.GOOD
    upstream.answer = broken
    assert "503" in (await examine_upstream(named)).says
    (gone,) = Settings(upstream="http://127.0.0.1:1").all_upstreams
    assert "cannot be reached" in (await examine_upstream(gone)).says


async def test_the_command_ends_with_1_if_something_is_wrong(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f'upstream = "{upstream.url}"\nport = 0\n')
    good = await asyncio.to_thread(CliRunner().invoke, doctor, ["--config", str(file)])
    assert good.exit_code == 0, good.output
    assert "upstream default" in good.output
    file.write_text('upstream = "http://127.0.0.1:1"\nport = 0\n')
    wrong = await asyncio.to_thread(CliRunner().invoke, doctor, ["--config", str(file), "--json"])
    assert wrong.exit_code == 1
    findings = [json.loads(line) for line in wrong.stdout.splitlines()]
    assert [one["subject"] for one in findings if one["verdict"] == "bad"] == ["upstream default"]
    offline = await asyncio.to_thread(CliRunner().invoke, doctor, ["--config", str(file), "--offline"])
    assert offline.exit_code == 0


async def test_a_server_that_says_nothing_is_no_proxy() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        return

    async with serving(silent) as url:
        found = await examine_port("127.0.0.1", int(url.rpartition(":")[2]))
    assert found.verdict is Verdict.BAD
