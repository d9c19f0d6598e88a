"""Settings files of agents as trees: read, changed at one place, written with all else as it was.

TOML and YAML keep their comments and order (tomlkit, ruamel.yaml), JSON its order and indentation, dotenv files every
line. Knows no agent and no file system.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

import tomlkit
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tomlkit.exceptions import TOMLKitError

Tree = MutableMapping[str, Any]


class Form(StrEnum):
    """How a settings file is written."""

    JSON = "json"
    TOML = "toml"
    YAML = "yaml"
    DOTENV = "dotenv"


class Missing:
    """Stands for a setting that is not there."""


MISSING: Final = Missing()


class UnreadableSettingsError(Exception):
    """A settings file is not in the form that it should be in, so that it cannot be changed without harm."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of one file."""

    file: Path
    form: Form
    keys: tuple[str, ...]
    """Where it stands, outermost first."""
    value: str


def parse(text: str, form: Form) -> Tree:
    """Read a settings file.

    Raises:
        UnreadableSettingsError: it is not in this form, or no table at its top.
    """
    try:
        tree: object
        if form is Form.JSON:
            tree = json.loads(text) if text.strip() else {}
        elif form is Form.TOML:
            tree = tomlkit.parse(text)
        elif form is Form.YAML:
            tree = _yaml().load(text)
            tree = {} if tree is None else tree
        else:
            tree = _Dotenv(text)
    except (ValueError, TOMLKitError, YAMLError) as error:
        detail = " ".join(str(error).split())
        raise UnreadableSettingsError(f"it cannot be read as {form}: {detail}") from None
    if not isinstance(tree, MutableMapping):
        raise UnreadableSettingsError(f"its top level is no table but {type(tree).__name__}")
    return cast(Tree, tree)


def render(tree: Tree, form: Form, like: str = "") -> str:
    """Write a settings file.

    Args:
        tree: from `parse`, or a new dictionary.
        form: in which to write it.
        like: the text it was read from, whose indentation it keeps.
    """
    if form is Form.JSON:
        return json.dumps(tree, indent=_indentation(like), ensure_ascii=False) + "\n"
    if form is Form.TOML:
        return tomlkit.dumps(tree)
    if form is Form.YAML:
        out = io.StringIO()
        _yaml().dump(tree, out)
        return out.getvalue()
    return tree.text if isinstance(tree, _Dotenv) else "".join(f"{key}={value}\n" for key, value in tree.items())


def find(tree: Tree, keys: tuple[str, ...]) -> object:
    """The value at a place; `MISSING` where there is none."""
    here: object = tree
    for key in keys:
        if not isinstance(here, Mapping) or key not in here:
            return MISSING
        here = here[key]
    return plain(here)


def put(tree: Tree, keys: tuple[str, ...], value: object) -> None:
    """Set the value at a place, making the tables above it.

    Raises:
        UnreadableSettingsError: something other than a table stands on the way.
    """
    here = tree
    for depth, key in enumerate(keys[:-1], start=1):
        if key not in here:
            here[key] = {}
        here = here[key]
        if not isinstance(here, MutableMapping):
            raise UnreadableSettingsError(f"{'.'.join(keys[:depth])} in it is no table")
    here[keys[-1]] = value


def remove(tree: Tree, keys: tuple[str, ...]) -> None:
    """Take the value at a place away, and the tables above it that this leaves empty."""
    tables = [tree]
    for key in keys[:-1]:
        inner = tables[-1].get(key)
        if not isinstance(inner, MutableMapping):
            return
        tables.append(inner)
    for table, key in zip(reversed(tables), reversed(keys), strict=True):
        table.pop(key, None)
        if table:
            return


def plain(value: object) -> object:
    """A value without what the libraries hang on it to remember its form."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # long values stay on their line
    return yaml


def _indentation(text: str) -> int | str:
    found = re.search(r"\n([ \t]+)\S", text)
    if found is None:
        return 2
    return "\t" if found[1].startswith("\t") else len(found[1])


class _Dotenv(MutableMapping[str, str]):
    """`NAME=value` lines; every other line stays where it is."""

    _LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    @property
    def text(self) -> str:
        return "".join(line + "\n" for line in self._lines)

    def _places(self) -> dict[str, int]:
        """The last line that sets each name: it wins."""
        found = ((self._LINE.match(line), index) for index, line in enumerate(self._lines))
        return {match[1]: index for match, index in found if match is not None}

    def __getitem__(self, key: str) -> str:
        match = self._LINE.match(self._lines[self._places()[key]])
        assert match is not None
        value = match[2]
        is_quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        return value[1:-1] if is_quoted else value

    def __setitem__(self, key: str, value: str) -> None:
        line, place = f"{key}={value}", self._places().get(key)
        if place is None:
            self._lines.append(line)
        else:
            self._lines[place] = line

    def __delitem__(self, key: str) -> None:
        del self._lines[self._places()[key]]

    def __iter__(self) -> Any:
        return iter(self._places())

    def __len__(self) -> int:
        return len(self._places())
