"""`sluice backend …`: installs, checks and runs the inference backends. What it prints for programs goes to stdout."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sluice.backend.errors import BackendError, VllmSettingsError

if TYPE_CHECKING:
    from sluice.backend.vllm.settings import VllmSettings

_ENV_DIR = click.option(
    "--env-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where vLLM's environment is; default: the platform's cache folder.",
)


@click.group()
def backend() -> None:
    """Install, check and run inference backends."""


@backend.command()
@click.argument("name", type=click.Choice(["vllm"]))
@click.option("--cpu", "is_cpu", is_flag=True, help="The build without a GPU: a third party's, slow, for tests.")
@click.option("--version", help="Another release than the one that was checked.")
@click.option("--with", "extra", multiple=True, metavar="PACKAGE", help="Install this too, e.g. lmcache.")
@_ENV_DIR
def install(name: str, is_cpu: bool, version: str | None, extra: tuple[str, ...], env_dir: Path | None) -> None:
    """Install vLLM into an environment of its own (3 GB and more)."""
    from sluice.backend.vllm.environment import VLLM_VERSION, install

    try:
        made = install(
            env_dir, is_cpu=is_cpu, version=version or VLLM_VERSION, extra=extra, on_progress=lambda line: _say(line)
        )
    except BackendError as error:
        raise click.ClickException(str(error)) from None
    click.echo(made.program)


@backend.command()
@click.argument("name", type=click.Choice(["vllm"]))
@_ENV_DIR
def uninstall(name: str, env_dir: Path | None) -> None:
    """Remove vLLM's environment."""
    from sluice.backend.vllm.environment import default_env_dir, remove

    was_there = (env_dir or default_env_dir()).exists()
    try:
        place = remove(env_dir)
    except BackendError as error:
        raise click.ClickException(str(error)) from None
    if was_there:
        click.echo(place)
    else:
        _say(f"vLLM is not installed in {place}: there is nothing to remove")


@backend.command()
@click.option("--params", type=click.FloatRange(min=0, min_open=True), metavar="B", help="Billion parameters.")
@click.option("--context", type=click.IntRange(1), default=32_768, show_default=True, help="Tokens of a conversation.")
@click.option("--model", metavar="FOLDER", help="Folder with a config.json: its true shape instead of a guess.")
@click.option(
    "--weights", type=click.Choice(["auto", "16bit", "fp8", "4bit"]), default="auto", show_default=True, help="Packing."
)
@click.option("--kv", type=click.Choice(["auto", "16bit", "fp8"]), default="auto", show_default=True, help="KV cache.")
@click.option("--json", "is_json", is_flag=True, help="Print everything as JSON.")
@_ENV_DIR
def doctor(
    params: float | None,
    context: int,
    model: str | None,
    weights: str,
    kv: str,
    is_json: bool,
    env_dir: Path | None,
) -> None:
    """Say what this machine can run, and with which flags."""
    from sluice.backend.doctor import advise, describe, inspect_machine, shape_of_config, shape_of_size

    try:
        machine = inspect_machine(env_dir)
        advice = None
        if model is not None or params is not None:
            shape = shape_of_config(Path(model), params) if model is not None else shape_of_size(params or 0.0)
            advice = advise(machine, shape, context, weights=weights, kv=kv)
    except BackendError as error:
        raise click.ClickException(str(error)) from None
    if is_json:
        from dataclasses import asdict

        click.echo(json.dumps({"machine": asdict(machine), "advice": asdict(advice) if advice else None}, indent=1))
        return
    click.echo("\n".join(describe(machine, advice)))


@backend.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(["vllm"]))
@click.option("--model", metavar="NAME", help="Hub name or folder.  [default: the bundled small model]")
@click.option("--config", type=click.Path(path_type=Path, exists=True), help="A sluice.toml with a table [vllm].")
@click.argument("extra_args", nargs=-1, type=click.UNPROCESSED)
def serve(name: str, model: str | None, config: Path | None, extra_args: tuple[str, ...]) -> None:
    """Run vLLM alone, kept up, until interrupted; what follows `--` is passed on to it."""
    import tomllib

    from sluice.backend.vllm.settings import load_vllm_settings

    try:
        fields = tomllib.loads(config.read_text("utf-8")).get("vllm", {}) if config is not None else {}
        if not isinstance(fields, dict):
            raise VllmSettingsError(f"vllm = {fields!r} in {config}; it must be a table")
        settings = load_vllm_settings({**fields, **({} if model is None else {"model": model})})
        settings = settings.model_copy(update={"extra_args": (*settings.extra_args, *extra_args)})
        asyncio.run(_serve(settings))
    except tomllib.TOMLDecodeError as error:
        raise click.ClickException(f"{config} is no TOML: {error}") from None
    except BackendError as error:
        raise click.ClickException(str(error)) from None


async def _serve(settings: VllmSettings) -> None:
    import signal

    from sluice.backend.vllm.server import VllmServer

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    server = VllmServer(settings, on_event=_say)
    try:
        await server.start()
        click.echo(server.base_url)
        await server.wait()
    except asyncio.CancelledError:
        _say("draining")
    finally:
        await asyncio.shield(server.stop())


def _say(line: str) -> None:
    """Print a line for people to stderr. That it cannot be written (a full disk, say) ends nothing."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


if __name__ == "__main__":
    backend()
