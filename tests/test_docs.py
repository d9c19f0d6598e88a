"""What the pages say can be done: generated pages are current, links lead somewhere, commands exist and run."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sluice.proxy.cli import main
from sluice.proxy.setting_errors import OTHERS_VARIABLES
from sluice.proxy.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "eval/*.md", "eval/*/*.md")
    for page in ROOT.glob(pattern)
    if page.name not in ("commands.md", "CHANGELOG.md")
)
RUN_AS_THEY_STAND = ("keys --file", "search ", "doctor", "compact ", "completion ", "demo --help")
"""How commands begin that touch nothing but the folder they are run in."""


def commands_of(page: Path) -> list[list[str]]:
    """The `sluice` commands in a page's code blocks, as lists of arguments."""
    found: list[list[str]] = []
    is_fenced = False
    text = page.read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        match = re.match(r"^(?:    |(?=\S)|\s+)sluice (.*)$", line) if is_fenced or line.startswith("    ") else None
        if match is not None and " = " not in line:
            found.append(shlex.split(re.split(r"\s+#|\s{2,}(?=[a-z])", match[1])[0].split("|")[0]))
    return found


ALL = [(page, command) for page in PAGES for command in commands_of(page)]


MODULES = [
    (page, match[1], shlex.split(match[2]))
    for page in PAGES
    for match in re.finditer(r"python -m (sluice\.[\w.]+)([^`\n]*)", page.read_text("utf-8").replace("\\\n", " "))
]
"""What is run as a module, and its arguments."""


def resolve(arguments: list[str]) -> None:
    """Follow a command line through the groups and parse its options; its values are not looked at.

    Raises:
        UsageError: a command or an option does not exist.
    """
    command: click.Command = main
    context = click.Context(command, info_name="sluice")
    rest = list(arguments)
    while True:
        parser = command.make_parser(context)
        _, rest, _ = parser.parse_args(rest)
        if not isinstance(command, click.Group):
            return
        name, *rest = rest
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"there is no command {name!r}")
        command = found
        context = click.Context(command, parent=context, info_name=name)


def options_below(command: click.Command) -> list[click.Option]:
    """The options of a command and of those below it."""
    if not isinstance(command, click.Group):
        return [one for one in command.params if isinstance(one, click.Option)]
    context = click.Context(command)
    below = [command.get_command(context, name) for name in command.list_commands(context)]
    return [option for one in below if one is not None for option in options_below(one)]


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_commands_are_found_in_the_pages() -> None:
    assert len(ALL) > 20
    assert ["stats"] in [command for page, command in ALL if page.name == "README.md"]


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page.name}: {' '.join(line)}" for page, line in ALL])
def test_each_command_in_the_pages_exists_with_its_options(page: Path, command: list[str]) -> None:
    resolve(command)


@pytest.mark.parametrize(
    ("module", "arguments"), [run[1:] for run in MODULES], ids=[f"{page.name}: {name}" for page, name, _ in MODULES]
)
def test_each_module_in_the_pages_exists_with_its_options(module: str, arguments: list[str]) -> None:
    pytest.importorskip("torch")
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__path__"):
        loaded = importlib.import_module(f"{module}.__main__")
    (command,) = (each for each in vars(loaded).values() if isinstance(each, click.Command))
    command.make_parser(click.Context(command)).parse_args(arguments)


def test_variables_are_settings_or_known_as_those_of_other_commands() -> None:
    found = {option.envvar for option in options_below(main) if option.envvar}
    assert found - {f"SLUICE_{name.upper()}" for name in Settings.model_fields} == OTHERS_VARIABLES


def test_every_header_of_ours_is_in_the_reference_and_no_other() -> None:
    sources = [file for part in ("proxy", "backend", "search") for file in (ROOT / part).rglob("*.py")]
    name = re.compile(r"x-sluice-[a-z]+(?:-[a-z]+)*")
    found = {header for file in sources for header in name.findall(file.read_text("utf-8"))}
    assert set(name.findall((ROOT / "docs" / "reference.md").read_text("utf-8"))) == found
    assert len(found) > 10


@pytest.mark.parametrize("command", [["fly"], ["serve", "--warp", "9"], ["eval", "replay", "--jobz", "2", "X"]])
def test_what_does_not_exist_would_be_found(command: list[str]) -> None:
    with pytest.raises(click.UsageError):
        resolve(command)


def test_commands_that_touch_nothing_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_SEARCH_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "session.py").write_text("def check_session_token(token: str) -> bool:\n    return token in SESSIONS\n")
    num_run = 0
    for page, command in ALL:
        line = " ".join(command)
        # A key that is removed is named by the id that it got.
        if line.startswith(RUN_AS_THEY_STAND) and " remove " not in line:
            done = CliRunner().invoke(main, command)
            assert done.exit_code == 0, f"{page.name}: sluice {line}: {done.output}"
            num_run += 1
    assert num_run >= 3
    assert (tmp_path / "cache").is_dir()


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target or target.startswith("#"):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"
