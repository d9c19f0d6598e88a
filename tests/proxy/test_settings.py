from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sluice.compressor import Mode
from sluice.proxy.errors import ConfigError
from sluice.proxy.load_settings import load_settings
from sluice.proxy.settings import Settings


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_defaults() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.mode) == ("127.0.0.1", 8790, Mode.BALANCED)
    assert (settings.upstream, settings.redis_url, settings.backend) == (None, None, "none")


def test_later_sources_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sluice.toml").write_text('port = 1\nhost = "file"\nmode = "off"\nttl_s = 7.5\n')
    monkeypatch.setenv("SLUICE_PORT", "2")
    monkeypatch.setenv("SLUICE_HOST", "env")
    settings = load_settings({"port": 3, "host": None, "mode": None})
    assert (settings.port, settings.host, settings.mode, settings.ttl_s) == (3, "env", Mode.OFF, 7.5)


def test_a_file_is_read_where_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("port = 5\n")
    (tmp_path / "sluice.toml").write_text("port = 6\n")
    assert load_settings(config=tmp_path / "other.toml").port == 5
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file"):
        load_settings(config=tmp_path / "missing.toml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1


@pytest.mark.parametrize("url", ["http://h", "http://h/", "http://h/v1", "http://h/v1/"])
def test_an_upstream_is_an_origin(url: str) -> None:
    assert load_settings({"upstream": url}).upstream == "http://h"
    assert load_settings({"upstream": "https://h:8/api/v1"}).upstream == "https://h:8/api"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "70000"),
        ("port", "x"),
        ("mode", "wild"),
        ("backend", "magic"),
        ("max_body_bytes", "0"),
        ("read_timeout_s", "0"),
        ("connect_timeout_s", "-1"),
        ("pool_timeout_s", "soon"),
        ("write_timeout_s", ""),
        ("upstream", "api.openai.com"),
        ("upstream", "ftp://h"),
        ("upstream", "http://h:port"),
        ("upstream", "http://h?x=1"),
        ("redis_url", "http://h"),
        ("log_level", "loud"),
    ],
)
def test_a_bad_value_is_named_with_its_key(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    monkeypatch.setenv(f"SLUICE_{key.upper()}", value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert key in str(caught.value)
    assert repr(value) in str(caught.value)


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "sluice.toml").write_text('prot = 1\nupstram = "x"\n')
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "unknown setting 'prot' in sluice.toml" in str(caught.value)
    assert "'upstram'" in str(caught.value)
    assert "port" in str(caught.value)


@pytest.mark.parametrize("text", ["port = ", "\xff", '[proxy]\nport = "x"'])
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sluice.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"sluice\.toml"):
        load_settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("redis_url", "rediss:/:hu/sh@h:1"),
        ("redis_url", "user:hush@h:6379"),
        ("redis_url", "http://:hush@h@h"),
        ("upstream", "https://user:hush@h"),
        ("upstream", "https://hush@h"),
    ],
)
def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    monkeypatch.setenv(f"SLUICE_{key.upper()}", value)
    try:
        shown = repr(load_settings())
    except ConfigError as error:
        shown = str(error)
    assert "hush" not in shown
    assert "hu/sh" not in shown


def test_an_upstream_and_a_backend_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        load_settings({"upstream": "http://h", "backend": "embedded"})


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("flags", "name", "ttl_s"),
    [
        ({"upstream": "https://api.anthropic.com"}, "anthropic", 300.0),
        ({"upstream": "https://api.openai.com/v1"}, "openai", 300.0),
        ({"upstream": "https://api.openai.com.example.org"}, "anthropic", 300.0),
        ({"upstream": "https://api.openai.com", "provider": "deepseek"}, "deepseek", 3_600.0),
        ({"backend": "embedded"}, "self-hosted", 300.0),
        ({"upstream": "http://127.0.0.1:1", "provider": "anthropic-1h", "cache_ttl_s": 7.0}, "anthropic-1h", 7.0),
    ],
)
def test_the_providers_prices_and_cache_life(flags: dict[str, object], name: str, ttl_s: float) -> None:
    profile = load_settings(flags).profile
    assert (profile.name, profile.ttl_s) == (name, ttl_s)


def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(ConfigError, match=r"provider.*nobody.*"):
        load_settings({"provider": "nobody"})


UPSTREAMS = """
[[upstreams]]
name = "claude"
preset = "anthropic"
models = ["claude-*"]
fallback = ["local"]

[[upstreams]]
name = "local"
preset = "vllm"
models = ["qwen"]
credential = "env:VLLM_KEY"
rename = { "claude-x" = "qwen" }
read_timeout_s = 5
"""


def test_several_upstreams_are_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sluice.toml").write_text(UPSTREAMS)
    monkeypatch.setenv("VLLM_KEY", " hush ")
    settings = load_settings({"upstream": "https://api.openai.com/v1"})
    claude, local, default = settings.all_upstreams
    assert (claude.known.origin, claude.profile_name) == ("https://api.anthropic.com", "anthropic")
    assert (local.secret and local.secret.get_secret_value(), local.read_timeout_s) == ("hush", 5.0)
    assert (default.name, default.preset, default.takes_clients_credential) == ("default", "openai", True)
    assert [upstream.takes_clients_credential for upstream in (claude, local)] == [True, False]
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('name = "a"', "upstream 'a' needs an origin"),
        ('name = "a"\norigin = "h"', "upstreams[0].origin: 'h'"),
        ('name = "a"\norigin = "http://h:99999"', "number up to 65535"),
        ('name = "a"\norigin = "http://me:hush/x@h"', "number up to 65535"),
        ('name = "a b"\norigin = "http://h"', "upstreams[0].name: 'a b'"),
        ('name = "a"\npreset = "wllm"', "upstreams[0].preset: 'wllm': must be one of"),
        ('name = "a"\norigin = "http://h"\nwires = ["chat", "morse"]', "morse"),
        ('name = "a"\norigin = "http://h"\nprofile = "x"', "upstreams[0].profile: 'x'"),
        ('name = "a"\norigin = "http://h"\ncolour = 1', "unknown setting 'upstreams[0].colour'"),
        ('name = "a"\norigin = "http://h"\nfallback = ["b"]', "'b', which is no other upstream"),
        ('name = "a"\norigin = "http://h"\nfallback = ["a"]', "'a', which is no other upstream"),
        ('name = "default"\norigin = "http://h"', "'default' is taken"),
        ('name = "a"\npreset = "openai"\ncredential = "env:NO_SUCH"', "not in the environment: NO_SUCH"),
        ('name = "a"\npreset = "openai"\ncredential = "file:/no/such"', "cannot read the credential of upstream 'a'"),
        ('name = "a"\npreset = "openai"\ncredential = "sk-hush"', "never the credential itself"),
        (
            'name = "a"\npreset = "vllm"\nreplicas = ["http://h"]\ncredential = "client"\nfallback = ["b"]\n'
            '[[upstreams]]\nname = "b"\npreset = "vllm"\ncredential = "client"',
            "needs a credential of its own",
        ),
        (
            'name = "a"\npreset = "openai"\nfallback = ["b"]\n[[upstreams]]\nname = "b"\npreset = "anthropic"',
            "upstream 'b' needs a credential of its own",
        ),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "sluice.toml").write_text(f"[[upstreams]]\n{table}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('upstreem = "x"', "unknown setting 'upstreem' in sluice.toml: did you mean 'upstream'?"),
        ('[[upstreams]]\nname = "a"\norigin = "http://h"\nmodel = "x"', "'upstreams[0].model'"),
        ('[[upstreams]]\nname = "a"\norigin = "http://h"\nmodel = "x"', "did you mean 'models'?"),
        ("[proxy]\nport = 1", "'proxy' in sluice.toml: settings stand in no table"),
        ('[upstreams]\nname = "a"', "bad value for upstreams: it is a list of tables, each under [[upstreams]]"),
        ("holdout = 1.5", "bad value for holdout: 1.5: input should be less than or equal to 1 (from sluice.toml)"),
    ],
)
def test_what_was_perhaps_meant_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "sluice.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert said in str(caught.value)


def test_a_bad_value_is_named_with_the_source_that_won(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sluice.toml").write_text('port = "a"\nmode = "b"\nholdout = 2\n')
    monkeypatch.setenv("SLUICE_MODE", "c")
    with pytest.raises(ConfigError) as caught:
        load_settings({"port": "d"})
    said = str(caught.value)
    assert "port: 'd': " in said
    assert "(from the command line)" in said
    assert "mode: 'c': " in said
    assert "(from SLUICE_MODE)" in said
    assert "holdout: 2: " in said
    assert "(from sluice.toml)" in said


def test_lists_in_the_environment_are_json_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_ALLOWED_HOSTS", "a,b")
    with pytest.raises(ConfigError, match=r'SLUICE_ALLOWED_HOSTS: .* JSON there: \["a", "b"\]'):
        load_settings()


def test_what_kubernetes_sets_for_a_service_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_PORT", "tcp://10.0.0.1:8790")
    with pytest.raises(ConfigError, match="enableServiceLinks: false"):
        load_settings()


@pytest.mark.parametrize("url", ["redis://h:port/0", "redis://h:6379/mine", "redis://h?colour=1", "redis://:p/w@h"])
def test_a_redis_url_that_the_client_would_misread_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: write redis://"):
        load_settings({"redis_url": url})


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://u:p%2Fw@h:6380/3", "unix:///run/redis.sock?db=2", "redis://h?db=1"]
)
def test_a_redis_url_of_any_form_that_the_client_reads_is_taken(url: str) -> None:
    found = load_settings({"redis_url": url}).redis_url
    assert found is not None
    assert found.get_secret_value() == url


def test_host_names_are_alike_in_any_case() -> None:
    assert load_settings({"allowed_hosts": ["Dev-Box.local"]}).allowed_hosts == ("dev-box.local",)


@pytest.mark.parametrize("key", ["drain_s", "ttl_s", "tokens_wait_s", "holdout"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_number_is_finite(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_settings({key: value})
