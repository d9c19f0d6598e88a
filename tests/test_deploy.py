"""The compose file and the Dockerfile say what the command line knows, and name files that are there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.backend.vllm.environment import VLLM_VERSION
from sluice.proxy.cli import serve
from sluice.proxy.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
SERVICE_KEYS = {
    "image", "build", "restart", "read_only", "tmpfs", "cap_drop", "security_opt", "ports", "volumes", "environment",
    "stop_grace_period", "command", "healthcheck", "profiles", "ipc", "deploy", "depends_on",
}  # fmt: skip


def with_defaults(text: str) -> str:
    """Fill in `${NAME:-default}` as compose would in an empty environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def test_services_use_known_keys_and_their_volumes_are_declared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], name
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in compose["services"]
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in compose["services"][needed]


@pytest.mark.parametrize("name", ["proxy", "proxy-cpu"])
def test_the_proxys_command_is_one_that_sluice_takes(
    compose: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = compose["services"][name]
    command, *flags = service["command"]
    assert command == "serve"
    context = serve.make_context("serve", [with_defaults(flag) for flag in flags])
    for key, value in service["environment"].items():
        assert key.removeprefix("SLUICE_").lower() in Settings.model_fields, key
        monkeypatch.setenv(key, with_defaults(value))
    monkeypatch.chdir(tmp_path)
    given = {key: value for key, value in context.params.items() if key != "config" and value != ()}
    settings = load_settings(given)
    assert settings.all_upstreams or settings.backend != "none"
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value().split("//")[1].split(":")[0] in compose["services"]
    assert set(settings.allowed_hosts) == {"localhost", "127.0.0.1"}
    (published,) = service["ports"]
    assert with_defaults(published) == f"127.0.0.1:{settings.port}:{settings.port}"


def test_the_proxy_is_sent_to_vllms_port(compose: dict[str, Any]) -> None:
    vllm = compose["services"]["vllm"]
    (port,) = [flag.split("=")[1] for flag in vllm["command"] if flag.startswith("--port=")]
    (upstream,) = [flag for flag in compose["services"]["proxy"]["command"] if flag.startswith("--upstream=")]
    assert upstream == f"--upstream=http://vllm:{port}"
    assert f"http://127.0.0.1:{port}/health" in vllm["healthcheck"]["test"]
    assert "ports" not in vllm
    assert vllm["image"] == f"vllm/vllm-openai:v{VLLM_VERSION}"
    (device,) = vllm["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_vllms_flags_are_those_that_we_would_give(compose: dict[str, Any]) -> None:
    from sluice.backend.vllm import VllmSettings
    from sluice.backend.vllm.flags import arguments

    every = VllmSettings(tool_call_parser="x", max_model_len=1, tensor_parallel_size=2)
    known = set(arguments(every, model="m", host="h", port=1, is_cpu=False))
    flags = {flag.split("=")[0] for flag in compose["services"]["vllm"]["command"] if flag.startswith("--")}
    assert flags <= known


def test_a_gpu_is_needed_by_the_profile_that_says_so_alone(compose: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles", []) for name, service in compose["services"].items()}
    assert profiles == {"redis": [], "vllm": ["gpu"], "proxy": ["gpu"], "proxy-cpu": ["cpu"]}


def test_services_run_without_rights_on_a_read_only_root(compose: dict[str, Any]) -> None:
    for name in ("proxy", "proxy-cpu"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_the_dockerfile_copies_what_is_there_and_what_the_wheel_needs(dockerfile: list[tuple[str, str]]) -> None:
    copied = [
        path for word, rest in dockerfile if word == "COPY" and "--from" not in rest for path in rest.split()[:-1]
    ]
    for path in copied:
        assert (ROOT / path).exists(), path
    linked = {link.name for link in (ROOT / "sluice").iterdir() if link.is_symlink()}
    assert linked <= set(copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= set(copied)


def test_the_dockerfile_installs_extras_that_exist(dockerfile: list[tuple[str, str]], compose: dict[str, Any]) -> None:
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    arguments = dict(rest.split("=", 1) for word, rest in dockerfile if word == "ARG")
    assert set(arguments["EXTRAS"].split(",")) <= known
    given = compose["services"]["proxy-cpu"]["build"]["args"]
    assert set(given) <= set(arguments)
    assert set(given["EXTRAS"].split(",")) <= known


def test_the_image_is_slim_and_not_root_and_starts_sluice(dockerfile: list[tuple[str, str]]) -> None:
    words = dict(dockerfile)
    assert words["FROM"].startswith("python:3.13-slim")
    assert words["USER"] == "10001:10001"
    assert json.loads(words["ENTRYPOINT"]) == ["sluice"]
    command, *flags = json.loads(words["CMD"])
    assert command == "serve"
    assert serve.make_context("serve", flags).params["port"] == int(words["EXPOSE"]) == 8790
    assert f"127.0.0.1:{words['EXPOSE']}/healthz" in words["HEALTHCHECK"]


def test_the_guide_names_files_and_settings_that_exist() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    for link in re.findall(r"\]\((\.\./[^)#]+)\)", text):
        assert (ROOT / "docs" / link).exists(), link
    from sluice.backend.vllm import VllmSettings

    block = text.split("    [vllm]\n")[1].split("\n\n")[0]
    table = tomllib.loads("\n".join(line.strip() for line in block.splitlines()))
    VllmSettings.model_validate({**table, "model": "m"})
