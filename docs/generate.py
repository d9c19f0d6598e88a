"""Writes docs/configuration.md, docs/commands.md and docs/reference.md from the code: `python docs/generate.py`.

With `--check` it writes nothing and ends with 1 where a file is not as it would be written.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from reference import reference

from sluice.backend.vllm.settings import VllmSettings
from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.cli import main
from sluice.proxy.settings import Settings
from sluice.proxy.upstreams.settings import UpstreamSettings

DOCS = Path(__file__).parent
WRITTEN = "<!-- Written by docs/generate.py: change the docstrings it reads. -->\n"
TABLES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("`[[upstreams]]`", "Several upstreams by model. [Upstreams](upstreams.md) explains them.", UpstreamSettings),
    ("`[[keys]]`", "Proxy keys. `sluice keys add` makes them; [Access](access.md) explains them.", ProxyKey),
    ("`[vllm]`", "How the managed vLLM is run. [Deployment](deploy.md) explains it.", VllmSettings),
)
INTRODUCTION = """
A setting is a flag of `sluice serve` (where it has one), a variable `SLUICE_NAME`, or a line of `sluice.toml` in the
folder that `sluice serve` is started in (`--config FILE` names another). Flags win over the environment, the
environment over the file. An unknown name in the file, and a value that cannot be used, stop the start and are
named; a variable that looks like a misspelt setting is warned of. `sluice doctor` reads the same settings and says
what does not fit.
"""
EXIT_CODES = """## Exit codes
| code | means |
|---:|---|
| 0 | done |
| 1 | it could not be done, what was asked about is not well, or it was interrupted: the last line on stderr says why |
| 2 | the command line is wrong |

Data goes to stdout, everything else to stderr. `NO_COLOR` switches colours off; they are off too where the output is no
terminal. `--json`, where a command has it, prints what programs read.
"""

VARIABLES = """## Variables
The settings of `sluice serve` are variables of their own ([configuration](configuration.md)). Other commands read
these, where the option is not given:

| variable | option |
|---|---|"""


def configuration() -> Iterator[str]:
    """The page of settings."""
    yield "# Configuration\n" + WRITTEN
    yield INTRODUCTION
    flags = {option.name: option.opts[-1] for option in _command("serve").params if isinstance(option, click.Option)}
    yield "| setting | default | flag | |\n|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        yield f"| `{name}`{_type(field)} | {_default(field)} | {_flag(flags.get(name))} | {_text(field)} |"
    for title, about, model in TABLES:
        yield f"\n## {title}\n{about}\n\n| key | default | |\n|---|---|---|"
        for name, field in model.model_fields.items():
            yield f"| `{name}`{_type(field)} | {_default(field)} | {_text(field)} |"


def commands() -> Iterator[str]:
    """The page of commands."""
    yield "# Commands\n" + WRITTEN
    yield EXIT_CODES
    yield VARIABLES
    for variable, options in sorted(_variables().items()):
        yield f"| `{variable}` | {'; '.join(options)} |"
    yield ""
    for path, command in _walk(main, ("sluice",)):
        settings = {"terminal_width": 100, "max_content_width": 100, **main.context_settings}
        context = click.Context(command, info_name=" ".join(path), **settings)
        yield f"## `{' '.join(path)}`\n```text\n{command.get_help(context).rstrip()}\n```\n"


def references() -> Iterator[str]:
    """The page of headers, bypass reasons, error codes and metrics."""
    yield "# Headers, error codes, metrics\n" + WRITTEN.replace("change", "change docs/reference.py or")
    yield from reference()


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _walk(inner, (*path, name))


def _variables() -> dict[str, list[str]]:
    """The options, with their commands, that each variable stands for."""
    found: dict[str, dict[str, list[str]]] = {}
    for path, command in _walk(main, ("sluice",)):
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(option.envvar, str):
                found.setdefault(option.envvar, {}).setdefault(option.opts[-1], []).append(f"`{' '.join(path)}`")
    return {
        variable: [f"`{name}` of {', '.join(paths)}" for name, paths in options.items()]
        for variable, options in found.items()
    }


def _command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def _flag(flag: str | None) -> str:
    return f"`{flag}`" if flag else ""


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


def _type(field: FieldInfo) -> str:
    """The values that a setting can have, where its text does not say."""
    annotation = field.annotation
    options = [one for one in _options(annotation) if one is not type(None)]
    if all(isinstance(option, str) for option in options):
        return ": " + ", ".join(f"`{option}`" for option in options)
    return ""


def _options(annotation: object) -> list[object]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [option for inner in typing.get_args(annotation) for option in _options(inner)]
    return [annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return f"`{value}`"


def _rendered(parts: Iterator[str]) -> str:
    text = "\n".join(parts).rstrip() + "\n"
    return re.sub(r"[ \t]+\n", "\n", text)


def run(is_check: bool) -> int:
    """Write the pages, or compare them; the number of those that differ."""
    num_stale = 0
    pages = {"configuration.md": configuration(), "commands.md": commands(), "reference.md": references()}
    for file, parts in ((DOCS / name, parts) for name, parts in pages.items()):
        text = _rendered(parts)
        if file.is_file() and file.read_text("utf-8") == text:
            continue
        num_stale += 1
        if is_check:
            print(f"{file} is not up to date: python docs/generate.py", file=sys.stderr)  # noqa: T201
        else:
            file.write_text(text, "utf-8")
    return num_stale


if __name__ == "__main__":
    has_to_check = "--check" in sys.argv[1:]
    num_stale = run(has_to_check)
    sys.exit(1 if has_to_check and num_stale else 0)
