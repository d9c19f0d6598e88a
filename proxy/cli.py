"""The command `sluice`: finds the commands that the packages bring and imports one only when it is called.

Help texts are read from a command's source, so that listing commands imports none of them.
"""

from __future__ import annotations

import ast
import difflib
import errno
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

import click

import sluice
from sluice.compressor.types import Mode

ENTRY_POINT_GROUP = "sluice.commands"
EXTRA_OF_PACKAGE = {"sluice.backend": "engine", "sluice.eval": "eval", "sluice.search": "search"}
"""Which extra of the distribution brings what a package's commands import."""
SECTIONS = {
    "To begin": ("demo", "serve", "connect", "doctor"),
    "While it runs": ("stats", "keys"),
    "By themselves": ("search", "mcp", "compact"),
    "Backends": ("engine", "backend", "scorer"),
    "Figures": ("eval", "bench"),
}
"""The order in which the commands are shown; others come last."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class LazyGroup(click.Group):
    """A group whose commands are entry points.

    Args:
        entry_point_group: which; each command's name is its entry point's.
        **settings: as of any group.
    """

    def __init__(self, *, entry_point_group: str = ENTRY_POINT_GROUP, **settings: Any) -> None:
        super().__init__(**settings)
        self._group = entry_point_group

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run; what the system refuses to read or write becomes a message, as long as it says which file or why."""
        _open_missing_streams()
        try:
            return super().main(*args, **settings)
        except OSError as error:
            if error.filename is None and error.errno not in _NO_ROOM:
                raise
            _leave_output()
            click.echo(f"Error: {error.filename or 'cannot write'}: {error.strerror}", err=True)
            sys.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, say which was perhaps meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands that are installed."""
        return sorted(entry_points(group=self._group).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None where there is none of this name.

        Raises:
            ClickException: a module that it needs is not installed.
        """
        for entry_point in entry_points(group=self._group, name=cmd_name):
            return _load(entry_point)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, by what they are for."""
        summaries = {entry_point.name: summary_of(entry_point) for entry_point in entry_points(group=self._group)}
        sections = {title: [name for name in names if name in summaries] for title, names in SECTIONS.items()}
        shown = {name for names in sections.values() for name in names}
        sections["More" if shown else "Commands"] = sorted(summaries.keys() - shown)
        width = max(map(len, summaries), default=0)
        for title, names in sections.items():
            if names:
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(width), summaries[name]) for name in names])


def _load(entry_point: EntryPoint) -> click.Command:
    try:
        return cast(click.Command, entry_point.load())
    except ModuleNotFoundError as error:
        package = ".".join(entry_point.module.split(".")[:2])
        extra = EXTRA_OF_PACKAGE.get(package)
        hint = f": pip install 'sluicegate[{extra}]'" if extra else ""
        raise click.ClickException(f"'sluice {entry_point.name}' needs the module {error.name!r}{hint}") from None


def _open_missing_streams() -> None:
    """Put nothing where a standard stream was closed: libraries take it for granted that there is one."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:  # else something else has taken its number
                nothing = os.open(os.devnull, os.O_RDWR)
                if nothing != number:
                    os.dup2(nothing, number)
                    os.close(nothing)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as we run


def _leave_output() -> None:
    """Drop what is still to be written: the interpreter would try, and complain, once more."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def summary_of(entry_point: EntryPoint) -> str:
    """First line of a command's docstring, from its source; empty where it cannot be read."""
    # Found by its name: importlib would import the packages around it, and all that these import.
    name = Path(*entry_point.module.split(".")).with_suffix(".py")
    roots = (Path(sluice.__file__).parents[1], *map(Path, sys.path))
    file = next((root / name for root in roots if (root / name).is_file()), None)
    if file is None:
        return ""
    tree = ast.parse(file.read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry_point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sluice.__version__, prog_name="sluice")
def main() -> None:
    """A drop-in base_url for coding agents: smaller context, smaller bill, nothing lost that is needed.

    \b
    sluice serve --upstream https://api.anthropic.com    in one terminal,
    sluice connect claude-code --write                   in another, once;
    then work as ever, and look at what it saved with:   sluice stats
    """  # noqa: D301 - click reads the character


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete sluice's commands and options.

    \b
    bash:  eval "$(sluice completion bash)"            in ~/.bashrc
    zsh:   eval "$(sluice completion zsh)"             in ~/.zshrc
    fish:  sluice completion fish | source             in ~/.config/fish/config.fish
    """  # noqa: D301 - click reads the character
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, "click knows these shells"
    click.echo(made(main, {}, "sluice", "_SLUICE_COMPLETE").source())


@click.command(cls=LazyGroup, entry_point_group="sluice.benchmarks")
def bench() -> None:
    """Measure this installation, beside the alternatives."""


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 8790]")
@click.option("--upstream", metavar="URL", help="Where requests go, e.g. https://api.openai.com")
@click.option(
    "--backend",
    type=click.Choice(["embedded", "vllm", "none"]),
    help="Start the bundled engine, or vLLM, as the upstream.",
)
@click.option("--model", metavar="NAME", help="Weights that the backend serves.")
@click.option("--provider", metavar="NAME", help="Whose cache prices count: auto, anthropic, openai, self-hosted …")
@click.option("--redis", "redis_url", metavar="URL", help="Keep state in Redis, e.g. redis://127.0.0.1:6379/0")
@click.option(
    "--mode", type=click.Choice([mode.value for mode in Mode]), help="How much may be dropped.  [default: balanced]"
)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings file.  [default: ./sluice.toml, if any]"
)
@click.option(
    "--search-root",
    "search_roots",
    type=click.Path(path_type=Path),
    multiple=True,
    callback=lambda _context, _option, roots: roots or None,
    help="A repository that /v1/search and /mcp may search; may be repeated.",
)
@click.option("--workers", type=int, help="Processes that serve; more than one need Redis.  [default: 1]")
@click.option("--allow-public", is_flag=True, default=None, help="Listen to other machines though no key is asked for.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write requests, content and all, to files in DIR, for sluice eval.",
)
@click.option(
    "--store-content",
    is_flag=True,
    default=None,
    help="Let the dashboard show content: the last request of recent conversations is kept.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.argument("backend_args", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM_FLAGS …]")
def serve(config: Path | None, backend_args: tuple[str, ...], **flags: object) -> None:
    """Serve the proxy.

    Every flag is also a setting in sluice.toml and in the environment (SLUICE_UPSTREAM, SLUICE_REDIS_URL …); flags
    win over the environment, the environment over the file.
    """
    from sluice.proxy.errors import ConfigError, StartError
    from sluice.proxy.load_settings import load_settings
    from sluice.proxy.serve import run

    try:
        run(load_settings({**flags, "backend_args": backend_args or None}, config))
    except ConfigError as error:
        raise (click.UsageError if error.is_usage else click.ClickException)(str(error)) from None
    except StartError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
