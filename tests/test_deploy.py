"""The compose file and the Dockerfile say what the command line knows, and name files that are there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
import redis
import yaml
from pydantic import BaseModel, ConfigDict, Field
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from sluice.backend.doctor import Gpu, Machine, advise, shape_of_size
from sluice.backend.vllm.environment import VLLM_VERSION
from sluice.proxy.cli import main, serve
from sluice.proxy.load_settings import load_settings
from sluice.proxy.settings import Settings
from tests.redis_server import find_binary

ROOT = Path(__file__).parents[1]
Duration = Annotated[str, Field(pattern=r"^\d+(ms|s|m|h)$")]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Z_]+$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Build(Strict):
    context: str
    args: dict[Variable, str] = {}


class Health(Strict):
    test: list[str]
    interval: Duration
    timeout: Duration
    retries: int
    start_period: Duration = "0s"


class Device(Strict):
    driver: Literal["nvidia"]
    count: Literal["all"] | int
    capabilities: list[str]


class Reservations(Strict):
    devices: list[Device]


class Resources(Strict):
    reservations: Reservations


class Deploy(Strict):
    resources: Resources


class Needs(Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Service(Strict):
    """What we use of a service (github.com/compose-spec/compose-spec, 05-services.md)."""

    image: Annotated[str, Field(pattern=r"^[\w./-]+:[\w.-]+$")]
    build: str | Build | None = None
    command: list[str]
    restart: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    profiles: list[Name] = []
    environment: dict[Variable, str] = {}
    ports: list[Annotated[str, Field(pattern=r"^(\$\{\w+:-)?[\d.]+\}?:\d+:\d+$")]] = []
    volumes: list[Annotated[str, Field(pattern=r"^[a-z]+:/[a-z/]+$")]] = []
    tmpfs: list[str] = []
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    ipc: Literal["host", "private", "shareable"] | None = None
    deploy: Deploy | None = None
    healthcheck: Health | None = None
    depends_on: dict[Name, Needs] = {}
    stop_grace_period: Duration = "10s"


class Compose(BaseModel):
    """The file; keys that begin with `x-` are templates."""

    name: Name
    services: dict[Name, Service]
    volumes: dict[Name, None]


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


def test_the_file_is_one_that_compose_reads(compose: dict[str, Any]) -> None:
    read = Compose.model_validate(compose)
    assert {key for key in compose if not key.startswith("x-")} == set(Compose.model_fields)
    for name, service in read.services.items():
        for volume in service.volumes:
            assert volume.split(":")[0] in read.volumes, name
        for needed, needs in service.depends_on.items():
            assert needs.condition == "service_healthy"
            health = read.services[needed].healthcheck
            assert health is not None
            assert health.test[0] == "CMD"
        if service.build is not None:
            context = service.build if isinstance(service.build, str) else service.build.context
            assert (ROOT / context / "Dockerfile").is_file()
    used = {volume.split(":")[0] for service in read.services.values() for volume in service.volumes}
    assert used == set(read.volumes)
    assert {image for service in read.services.values() if service.build for image in [service.image]} == {
        "sluice:local", "sluice:local-cpu"
    }, "the two builds differ and must not overwrite each other"  # fmt: skip


def test_what_is_interpolated_is_no_secret_and_has_a_default(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert len(re.findall(r"\$\{", text)) == len(re.findall(r"\$\{[A-Z_]+:-[^}]*\}", text))
    assert re.findall(r"\$\{([A-Z_]*TOKEN):-([^}]*)\}", text) == [("HF_TOKEN", "")]


def test_redis_takes_its_command(compose: dict[str, Any], tmp_path: Path) -> None:
    program, *flags = compose["services"]["redis"]["command"]
    assert program == "redis-server"
    path = tmp_path / "redis.sock"
    command = [find_binary(), *flags, "--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            client = redis.Redis(unix_socket_path=str(path), retry=Retry(ConstantBackoff(0.05), 400))
            assert client.ping()
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
            client.close()
        finally:
            server.terminate()


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
    assert {volume.split(":")[1] for volume in service["volumes"]} == {"/state"}
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


def commands_of(text: str) -> list[list[str]]:
    """Arguments of `sluice` in indented code, in containers and out of them; remarks and settings are left out."""
    code = re.sub(r"\\\n\s*", "", text)
    lines = [line.split("  #")[0].strip() for line in code.splitlines() if line.startswith("    ")]
    found = [re.sub(r"^docker compose .*\brun (--\S+ )*proxy ", "sluice ", line) for line in lines]
    return [shlex.split(line)[1:] for line in found if line.startswith("sluice ")]


@pytest.mark.parametrize("file", ["docs/deploy.md", "README.md"])
def test_the_guides_commands_are_ones_that_sluice_takes(file: str) -> None:
    found = commands_of((ROOT / file).read_text())
    assert len(found) >= 3
    for arguments in found:
        command: click.Command = main
        context = command.make_context("sluice", list(arguments))
        while isinstance(command, click.Group):
            rest = [*context._protected_args, *context.args]
            name, sub, rest = command.resolve_command(context, rest)
            assert sub is not None, arguments
            assert name is not None
            command, context = sub, sub.make_context(name, rest, parent=context)


@pytest.mark.parametrize(
    ("row", "billions", "weights", "kv"),
    [
        ("8B (Llama 3.1), 16 bits", 8.03, "16bit", "16bit"),
        ("the same, fp8 cache", 8.03, "16bit", "fp8"),
        ("30B-A3B (Qwen3-Coder), fp8, fp8 cache", 30.5, "fp8", "fp8"),
        ("32B dense, fp8, fp8 cache", 32.8, "fp8", "fp8"),
        ("70B, 4 bits, fp8 cache", 70.6, "4bit", "fp8"),
    ],
)
def test_the_guides_sizes_are_the_doctors(row: str, billions: float, weights: str, kv: str) -> None:
    gpu = Gpu("GPU", 80 * 2**30, 80 * 2**30, "580", 9.0)
    found = advise(Machine((gpu,), 8, 2**38, 2**42, None), shape_of_size(billions), 65_536, weights=weights, kv=kv)
    gib = found.weight_bytes / 2**30, found.kv_room_bytes / 2**30
    shown = f"| {row} | {gib[0]:.0f} GiB | {found.kv_bytes_per_token / 1024:.0f} KiB | {gib[1]:.0f} GiB |"
    assert f"{shown} {found.num_streams} |" in (ROOT / "docs" / "deploy.md").read_text()


def test_the_readme_says_what_was_not_run() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    assert re.search(r"vLLM was run by us on a CPU only; containers, .*not", text)
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert "**Not run by us**: the containers" in guide


def test_the_guide_names_files_and_settings_that_exist() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    for link in re.findall(r"\]\((\.\./[^)#]+)\)", text):
        assert (ROOT / "docs" / link).exists(), link
    from sluice.backend.vllm import VllmSettings

    block = text.split("    [vllm]\n")[1].split("\n\n")[0]
    table = tomllib.loads("\n".join(line.strip() for line in block.splitlines()))
    VllmSettings.model_validate({**table, "model": "m"})
