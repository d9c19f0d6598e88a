"""Says what is wrong with a setting, and what was perhaps meant. Knows no file and no environment by itself."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import SecretStr

_SECRETS = ("credential", "dashboard_key", "search_deep_key", "hash")
_URLS = ("upstream", "redis_url", "origin", "search_deep_url", "scorer", "otlp_endpoint", "replicas", "kv_events")
_PREFIX = "SLUICE_"
OTHERS_VARIABLES = frozenset(
    ("SLUICE_URL", "SLUICE_KEY", "SLUICE_CACHE_DIR", "SLUICE_PROXY_URL", "SLUICE_EVAL_API_KEY")
)
"""Variables of other commands."""


def describe(
    detail: Any, source_of: Callable[[str], str], tables: Mapping[str, Collection[str]], known: Collection[str]
) -> str:
    """Put one of pydantic's complaints into a sentence that names key, value and source, and shows no secret.

    Args:
        detail: of `ValidationError.errors()`.
        source_of: says where a setting was read from.
        tables: by name, the keys that a table of a list may have.
        known: all settings.
    """
    loc: Sequence[str | int] = detail["loc"]
    key = key_of(loc) or "settings"
    source = source_of(str(loc[0])) if loc else "the settings"
    if detail["type"] == "extra_forbidden":
        names = tables.get(str(loc[0]), known) if len(loc) > 1 else known
        is_table = isinstance(detail["input"], Mapping) and len(loc) == 1
        hint = ": settings stand in no table" if is_table else meant(str(loc[-1]), names)
        return f"unknown setting {key!r} in {source}{hint}"
    message = detail["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    value = detail["input"]
    if len(loc) == 1 and loc[0] in tables and not isinstance(value, list | tuple):
        message = f"it is a list of tables, each under [[{key}]]"
    if isinstance(value, dict | list | tuple):
        return f"bad value for {key}: {message} (from {source})"
    shown = repr(value.get_secret_value() if isinstance(value, SecretStr) else value)
    if key == "port" and str(value).startswith("tcp://"):
        message += " (Kubernetes sets SLUICE_PORT for a service named sluice: enableServiceLinks: false)"
    name = next((part for part in reversed(loc) if isinstance(part, str)), key)
    if name in _SECRETS:
        shown = "'***'"
    elif name in _URLS:
        shown = re.sub(r"'.*@", "'***@", shown)  # what stands before a host may be a password
    return f"bad value for {key}: {shown}: {message} (from {source})"


def meant(name: str, known: Iterable[str]) -> str:
    """What was perhaps meant; else all there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def unknown_variables(environment: Iterable[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Variables that look like settings and are none, each with the one that was perhaps meant.

    Those that are like no setting are left out: they may be anybody's.
    """
    names = {name.upper() for name in known}
    for variable in sorted(environment):
        name = variable.upper().removeprefix(_PREFIX)
        if variable.startswith(_PREFIX) and name not in names and variable not in OTHERS_VARIABLES:
            near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.75)
            if near:
                yield variable, _PREFIX + near[0]


def key_of(loc: Sequence[str | int]) -> str:
    """Write the place of a value as users would: `upstreams[0].origin`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
