"""The command `sluice connect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sluice.proxy.origin_option import proxy_url

if TYPE_CHECKING:
    from sluice.proxy.connect.agents import Agent, Setup

_NAMES = ("claude-code", "codex", "opencode", "aider", "cline", "openhands", "mini-swe-agent")
"""`AGENTS`' own, spelled out so that the command's help imports nothing; a test holds them together."""


def _proxy_key(context: click.Context, option: click.Parameter, key: str | None) -> str | None:
    from sluice.proxy.access.keys import START, parse_key

    if key and parse_key(key) is None:
        if context.get_parameter_source(option.name or "") is click.core.ParameterSource.ENVIRONMENT:
            return None  # the owner's, which `sluice stats` takes from there
        raise click.BadParameter(f"no proxy key: those begin with {START}, as `sluice keys add` shows them")
    return key or None


@click.command()
@click.argument("agent", type=click.Choice(_NAMES))
@proxy_url
@click.option("--model", metavar="NAME", help="Have the agent use this model, and ask it once.")
@click.option(
    "--key",
    metavar="KEY",
    envvar="SLUICE_KEY",
    show_envvar=True,
    callback=_proxy_key,
    help="Proxy key for the agent to send; stands in its settings then.",
)
@click.option("--write", "is_written", is_flag=True, help="Change the agent's settings.")
@click.option("--undo", "is_undone", is_flag=True, help="Put the agent's settings back.")
@click.option("--check/--no-check", "is_checked", default=True, help="Send one request through.  [default: check]")
def connect(
    agent: str, url: str, model: str | None, key: str | None, is_written: bool, is_undone: bool, is_checked: bool
) -> None:
    """Point a coding agent at the proxy.

    Prints the settings that do it; --write makes them, and remembers what stood there for --undo. Then one request is
    sent the way the agent would send it. Ends with 1 if it does not get through.
    """
    import os

    from sluice.proxy.connect.agents import AGENTS, Place
    from sluice.proxy.connect.check import check

    if is_written and is_undone:
        raise click.UsageError("--write and --undo exclude each other")
    if is_undone:
        _undo(agent)
        return
    known = AGENTS[agent]
    setup = known.setup(Place.of_user(), url, model, key)
    _show(known, setup)
    if is_written:
        _write(known, setup)
    elif setup.changes:
        click.echo("\nNothing was changed. To have it done: add --write.", err=True)
    if is_checked:
        checked = check(url, known.wire, model, os.environ, key, is_only_key=not known.takes_headers)
        mark = click.style("works", fg="green") if checked.is_good else click.style("does not work", fg="red")
        click.echo(f"\n{mark}: {checked.says}", err=True)
        if not checked.is_good:
            raise click.exceptions.Exit(1)


def _show(agent: Agent, setup: Setup) -> None:
    """Print each file's part as it would stand in a new file."""
    from sluice.proxy.connect.documents import put, render

    for file in dict.fromkeys(change.file for change in setup.changes):
        changes = [change for change in setup.changes if change.file == file]
        tree: dict[str, object] = {}
        for change in changes:
            put(tree, change.keys, change.value)
        click.echo(click.style(f"# {agent.title}: {file}", dim=True))
        click.echo(render(tree, changes[0].form).rstrip("\n"))
    if setup.changes and setup.steps:
        click.echo()
    for step in setup.steps:
        click.echo(step)


def _write(agent: Agent, setup: Setup) -> None:
    from sluice.proxy.connect.documents import UnreadableSettingsError
    from sluice.proxy.connect.journal import Journal
    from sluice.proxy.connect.write import write

    if not setup.changes:
        raise click.ClickException(
            f"nothing was written: {agent.title} has no settings file here that could be edited; do what stands above"
        )
    try:
        files = write(agent.name, setup.changes, Journal.of_user())
    except UnreadableSettingsError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(_not_written(error, agent.name)) from None
    click.echo(f"\nwritten: {', '.join(map(str, files))}" if files else "\nit was set up so already", err=True)
    click.echo(f"to put it back: sluice connect {agent.name} --undo", err=True)


def _not_written(error: OSError, agent: str) -> str:
    """What to do where a file cannot be written: each is as it was before or as it is to be, never half."""
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror}: make room, or make the folder writable, and run it again; no file is left half "
        f"written, and 'sluice connect {agent} --undo' takes back what was changed"
    )


def _undo(agent: str) -> None:
    from sluice.proxy.connect.documents import UnreadableSettingsError
    from sluice.proxy.connect.journal import Journal
    from sluice.proxy.connect.write import undo

    try:
        done = undo(agent, Journal.of_user())
    except UnreadableSettingsError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(_not_written(error, agent)) from None
    if not done:
        click.echo(f"sluice connect {agent} --write was not run here: there is nothing to put back", err=True)
    for one in done:
        place = f"{'.'.join(one.entry.keys)} in {one.entry.file}"
        restored = "as it was before" if one.entry.was_there else "taken out"
        what = restored if one.is_restored else "left as it is now, since it was changed meanwhile"
        click.echo(f"{place}: {what}", err=True)
    for file in dict.fromkeys(one.entry.file for one in done if one.entry.made_file):
        if not file.exists():
            click.echo(f"{file}: removed, since nothing else stood in it", err=True)
