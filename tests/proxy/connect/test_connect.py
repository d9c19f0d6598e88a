from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sluice.backend.free_port import free_port
from sluice.proxy.access.keys import make_key
from sluice.proxy.connect.agents import AGENTS
from sluice.proxy.connect.check import check
from sluice.proxy.connect.cli import _NAMES, connect
from sluice.proxy.wire import WireName
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy, serving


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "SLUICE_KEY",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "CLAUDE_CONFIG_DIR",
        "CODEX_HOME",
        "XDG_CONFIG_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, connect, list(arguments))


def files_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


async def refuse_the_model(exchange: Exchange) -> None:
    await exchange.whole(b'{"error": {"message": "no such model", "type": "invalid_request_error"}}', 404)


async def want_a_key(exchange: Exchange) -> None:
    await exchange.whole(b'{"error": {"message": "no key", "type": "authentication_error"}}', 401)


def test_help_names_the_agents_there_are() -> None:
    assert tuple(AGENTS) == _NAMES


@pytest.mark.parametrize("name", list(AGENTS))
async def test_each_agents_settings_are_printed_and_its_way_is_tried(
    name: str, home: Path, upstream: ScriptedUpstream
) -> None:
    upstream.answer = refuse_the_model
    async with proxy(upstream.url) as client:
        url = str(client.base_url).rstrip("/")
        done = await run(name, "--url", url)
    assert done.exit_code == 0, done.output
    assert url in done.stdout
    assert "works: the upstream answers through the proxy" in done.stderr
    path = {
        WireName.CHAT: "/v1/chat/completions",
        WireName.RESPONSES: "/v1/responses",
        WireName.MESSAGES: "/v1/messages",
    }
    assert upstream.last.path == path[AGENTS[name].wire]
    assert not files_in(home)


async def test_a_model_that_is_named_is_asked(home: Path, upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        done = await run("opencode", "--url", f"{client.base_url}/v1", "--model", "gpt-4o", "--write")
    assert done.exit_code == 0, done.output
    assert "works: gpt-4o answered" in done.stderr
    written = json.loads((home / ".config" / "opencode" / "opencode.json").read_text())
    assert written["model"] == "sluice/gpt-4o"
    back = await run("opencode", "--undo")
    assert back.exit_code == 0
    file = home / ".config" / "opencode" / "opencode.json"
    assert not file.exists()
    assert f"model in {file}: taken out" in back.stderr
    assert f"{file}: removed" in back.stderr


async def test_undo_says_what_is_as_it_was(home: Path) -> None:
    file = home / ".codex" / "config.toml"
    file.parent.mkdir()
    file.write_text('model_provider = "mine"\n')
    await run("codex", "--write", "--no-check")
    back = await run("codex", "--undo")
    assert f"model_provider in {file}: as it was before" in back.stderr
    assert f"model_providers.sluice.name in {file}: taken out" in back.stderr
    assert file.read_text().strip() == 'model_provider = "mine"'


async def test_what_a_person_is_told_stands_apart_from_what_goes_into_the_file(home: Path) -> None:
    done = await run("codex", "--no-check")
    settings, told = done.stdout.split("\n\nCodex takes")
    assert settings.startswith("# Codex")
    assert "OPENAI_API_KEY" in told


async def test_nothing_listens(home: Path) -> None:
    done = await run("claude-code", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 1
    assert "start it with sluice serve" in done.stderr


async def test_something_else_listens(home: Path, upstream: ScriptedUpstream) -> None:
    done = await run("claude-code", "--url", upstream.url)
    assert done.exit_code == 1
    assert "is not Sluice" in done.stderr


@pytest.mark.parametrize(("key", "is_good"), [(None, True), ("sk-wrong", False)])
async def test_an_upstream_that_wants_a_credential(upstream: ScriptedUpstream, key: str | None, is_good: bool) -> None:
    upstream.answer = want_a_key
    async with proxy(upstream.url) as client:
        url = str(client.base_url).rstrip("/")
        environment = {"OPENAI_API_KEY": key} if key else {}
        checked = await asyncio.to_thread(check, url, WireName.CHAT, None, environment)
    assert checked.is_good is is_good
    assert "credential" in checked.says


async def test_an_upstream_that_is_gone() -> None:
    async with proxy(f"http://127.0.0.1:{free_port()}", max_retries=0) as client:
        url = str(client.base_url).rstrip("/")
        checked = await asyncio.to_thread(check, url, WireName.MESSAGES, None, {})
    assert not checked.is_good
    assert "was not served" in checked.says


async def test_a_proxy_that_wants_a_key_says_so(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxy(upstream.url, keys_file=tmp_path / "keys.json") as client:
        url = str(client.base_url).rstrip("/")
        checked = await asyncio.to_thread(check, url, WireName.CHAT, None, {})
    assert not checked.is_good
    assert "does not let the request in" in checked.says


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--url", "localhost:8790"], "no http:// or https:// URL"),
        (["--url", "http://[::1"], "no http:// or https:// URL"),
        (["--url", "http://localhost:87900"], "no http:// or https:// URL"),
        (["--write", "--undo"], "exclude each other"),
    ],
)
async def test_bad_options_are_named(home: Path, arguments: list[str], says: str) -> None:
    done = await run("codex", *arguments)
    assert done.exit_code == 2
    assert says in done.output


async def test_an_agent_without_settings_files_is_not_written(home: Path) -> None:
    done = await run("cline", "--write", "--no-check")
    assert done.exit_code == 1
    assert "nothing was written: Cline has no settings file here" in done.output


async def test_undo_without_a_write_says_so(home: Path) -> None:
    done = await run("codex", "--undo")
    assert done.exit_code == 0
    assert "nothing to put back" in done.stderr


async def test_the_check_survives_a_stub(home: Path) -> None:
    async def silent(scope: object, receive: object, send: object) -> None:
        return

    async with serving(silent) as url:
        checked = await asyncio.to_thread(check, url, WireName.CHAT, None, {})
    assert not checked.is_good


@pytest.mark.parametrize("name", list(AGENTS))
async def test_a_proxy_key_that_is_named_lets_each_agent_in(
    name: str, home: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-own")
    upstream.answer = refuse_the_model
    key, text = make_key("ann")
    async with proxy(upstream.url, keys=(key,)) as client:
        url = str(client.base_url).rstrip("/")
        without = await run(name, "--url", url)
        assert without.exit_code == 1
        assert "name one with --key" in without.stderr
        monkeypatch.setenv("SLUICE_KEY", text)
        done = await run(name, "--url", url, "--write")
    if AGENTS[name].takes_headers:
        assert done.exit_code == 0, done.output
        assert f"{text}" in done.stdout
        assert "sk-own" in repr(upstream.last.headers)
    else:
        assert "works" in done.stderr or "nothing was written" in done.stderr
        assert "The proxy key goes where the upstream's stood" in done.stdout
        assert "sk-own" not in repr(upstream.exchanges and upstream.last.headers)
    assert text not in repr(upstream.exchanges and upstream.last.headers)


async def test_an_agent_with_room_for_one_key_needs_the_upstreams_on_the_proxy(
    home: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    upstream.answer = want_a_key
    key, text = make_key("ann")
    async with proxy(upstream.url, keys=(key,)) as client:
        done = await run("aider", "--url", str(client.base_url), "--key", text)
    assert done.exit_code == 1
    assert "has to have its credential configured" in done.stderr


async def test_headers_that_stand_there_stay_beside_the_proxy_key(home: Path) -> None:
    file = home / ".claude" / "settings.json"
    file.parent.mkdir()
    before = {"env": {"ANTHROPIC_CUSTOM_HEADERS": "x-team: a\nX-Sluice-Key: old"}}
    file.write_text(json.dumps(before))
    for _ in range(2):
        _, text = make_key("ann")
        await run("claude-code", "--key", text, "--write", "--no-check")
        written = json.loads(file.read_text())["env"]
        assert written["ANTHROPIC_CUSTOM_HEADERS"] == f"x-team: a\nx-sluice-key: {text}"
    await run("claude-code", "--undo")
    assert json.loads(file.read_text()) == before


async def test_what_is_no_proxy_key_is_not_written(home: Path) -> None:
    done = await run("codex", "--key", "hush-provider", "--write", "--no-check")
    assert done.exit_code == 2
    assert "no proxy key" in done.stderr
    assert "hush" not in done.output
    assert not files_in(home)


async def test_the_owners_key_in_the_environment_is_no_agents(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KEY", "hush-dashboard")
    done = await run("codex", "--write", "--no-check")
    assert done.exit_code == 0
    assert "hush" not in done.output + (home / ".codex" / "config.toml").read_text()
    assert (await run("codex", "--undo")).exit_code == 0
