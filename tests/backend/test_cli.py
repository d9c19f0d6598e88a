from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from sluice.backend.cli import engine
from sluice.backend.settings import default_cache_dir
from sluice.backend.vllm.environment import default_env_dir
from sluice.backend.weights import ModelFolder


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(engine, ["serve", "--port", str(port)])
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.output


def test_a_port_that_is_taken_while_the_model_loads_is_named(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))  # as another engine does that loads at the same time

        def resolve(*_: object) -> ModelFolder:
            other.listen()
            return ModelFolder("tiny", tiny_folder)

        monkeypatch.setattr("sluice.backend.weights.resolve_model", resolve)
        port = other.getsockname()[1]
        result = CliRunner().invoke(engine, ["serve", "--port", str(port), "--kv-cache-gib", "0.01"])
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_listens_to_no_other_machine_unless_told(host: str) -> None:
    arguments = ["serve", "--port", "0", "--host", host, "--model", "/nowhere"]
    refused = CliRunner().invoke(engine, arguments)
    assert refused.exit_code == 1
    assert host in refused.output
    assert "--allow-public" in refused.output
    told = CliRunner().invoke(engine, [*arguments, "--allow-public"])
    assert "cannot load model '/nowhere'" in told.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "70000"], "70000"),
        (["--dtype", "int3"], "'int3'"),
        (["--model", "/nowhere"], "cannot load model '/nowhere': there is no such folder"),
        (["--model", __file__], "it is a file; of files, only *.gguf are models"),
        (["--kv-cache-gib", "0"], "0.0 is not in the range x>0"),
    ],
)
def test_bad_flags_are_named(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(engine, ["serve", "--port", "0", *arguments])
    assert result.exit_code != 0
    assert says in result.output


def test_a_cache_that_holds_too_little_says_so(tiny_folder: Path) -> None:
    arguments = ["serve", "--port", "0", "--model", str(tiny_folder), "--kv-cache-gib", "0.000001"]
    result = CliRunner().invoke(engine, arguments)
    assert result.exit_code == 1
    assert "hold only" in result.output
    assert "--kv-cache-gib" in result.output


def test_the_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "sluice"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert default_cache_dir() == tmp_path / ".cache" / "sluice"
    monkeypatch.setenv("SLUICE_CACHE_DIR", str(tmp_path / "named"))
    assert default_cache_dir() == tmp_path / "named"
    assert default_env_dir() == tmp_path / "named" / "vllm"
