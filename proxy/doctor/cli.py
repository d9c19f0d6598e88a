"""The command `sluice doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sluice.proxy.doctor.finding import Finding

_MARKS = {"good": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "red")}


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings file.  [default: ./sluice.toml]"
)
@click.option("--offline", is_flag=True, help="Connect to nothing.")
@click.option("--json", "is_json", is_flag=True, help="All findings, as JSON lines.")
def doctor(config: Path | None, offline: bool, is_json: bool) -> None:
    """Say what is installed, configured and reachable, and how to mend what is wrong.

    Reads the settings as sluice serve would, in this folder and environment. Ends with 1 if something is wrong.
    """
    import asyncio

    num_bad = asyncio.run(_examine(config, is_offline=offline, is_json=is_json))
    if num_bad:
        if not is_json:
            click.echo(f"\n{num_bad} to be mended", err=True)
        raise click.exceptions.Exit(1)


async def _examine(config: Path | None, *, is_offline: bool, is_json: bool) -> int:
    """Print each finding as it is made; how many are bad."""
    import os

    from sluice.proxy.doctor.configuration import examine_environment, examine_settings, read_settings
    from sluice.proxy.doctor.finding import Verdict
    from sluice.proxy.doctor.installation import examine_installation, examine_needs
    from sluice.proxy.doctor.reach import examine_reach
    from sluice.proxy.doctor.scoring import examine_model

    num_bad = 0

    def show(finding: Finding) -> None:
        nonlocal num_bad
        num_bad += finding.verdict is Verdict.BAD
        _print(finding, is_json=is_json)

    for finding in examine_installation():
        show(finding)
    settings, findings = read_settings(config)
    for finding in findings:
        show(finding)
    if settings is None:
        return num_bad
    for finding in (
        *examine_settings(settings),
        *examine_environment(os.environ, settings),
        *examine_needs(settings),
        *examine_model(settings),
    ):
        show(finding)
    if not is_offline:
        async for finding in examine_reach(settings):
            show(finding)
    return num_bad


def _print(finding: Finding, *, is_json: bool) -> None:
    if is_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps(asdict(finding)))
        return
    mark, colour = _MARKS[finding.verdict]
    click.echo(f"{click.style(mark, fg=colour)} {click.style(finding.subject, bold=True)}: {finding.says}")
    if finding.remedy:
        click.echo(f"    {click.style('→', dim=True)} {finding.remedy}")
