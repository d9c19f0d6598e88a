"""Reads the settings from `sluice.toml`, then `SLUICE_*`, then flags (later ones win).

Nothing else in the package reads the environment, but for credentials that a setting names. A value that cannot be used
stops start-up with its key and value.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsError

from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.errors import ConfigError
from sluice.proxy.setting_errors import describe
from sluice.proxy.settings import Settings
from sluice.proxy.upstreams.settings import UpstreamSettings

DEFAULT_CONFIG_FILE = Path("sluice.toml")
_LIST = """["a", "b"]"""


def load_settings(flags: dict[str, object] | None = None, config: Path | None = None) -> Settings:
    """Read the settings from all sources.

    Args:
        flags: values given on the command line, by field name; None stands for "not given".
        config: the settings file; None takes `./sluice.toml` where there is one.

    Raises:
        ConfigError: a source cannot be read, a key is unknown, or a value cannot be used.
    """
    path = config or (DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.is_file() else None)
    from_file = _read_toml(path) if path is not None else {}

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **sources: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file_settings = InitSettingsSource(settings_cls, from_file)
            return *super().settings_customise_sources(settings_cls, *args, **sources), file_settings

    given = {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        loaded = Loaded(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        tables = {"upstreams": UpstreamSettings.model_fields, "keys": ProxyKey.model_fields}

        def source_of(name: str) -> str:
            if name in given:
                return "the command line"
            variable = f"SLUICE_{name.upper()}"
            return variable if variable in os.environ else str(path or "the environment")

        said = [describe(detail, source_of, tables, Settings.model_fields) for detail in error.errors()]
        is_usage = all(detail["loc"] and detail["loc"][0] in given for detail in error.errors())
        raise ConfigError("; ".join(said), is_usage=is_usage) from None
    except SettingsError as error:
        name = re.search(r'field "(\w+)"', str(error))
        variable = f"SLUICE_{name[1].upper()}" if name else "a variable"
        raise ConfigError(f"bad value for {variable}: lists and tables are written as JSON there: {_LIST}") from None
    _check_together(loaded, given)
    # Of the class itself: one that is local to this function could not be handed to a worker.
    values = {name: getattr(loaded, name) for name in Settings.model_fields}
    return Settings.model_construct(loaded.model_fields_set, **values)


def _check_together(settings: Settings, given: Collection[str]) -> None:
    """Check settings that go together, or do not.

    Args:
        settings: all of them.
        given: those of the command line.

    Raises:
        ConfigError: they cannot be used so.
    """
    if settings.upstream is not None and settings.backend != "none":
        raise ConfigError(
            f"upstream = {settings.upstream!r} and backend = {settings.backend!r} exclude each other: "
            "the backend is the upstream"
        )
    if settings.backend_args and settings.backend != "vllm":
        raise ConfigError(
            f"backend_args = {shlex.join(settings.backend_args)!r} (what stands behind --) goes to vLLM, and backend = "
            f"{settings.backend!r}: add --backend vllm, or leave it out",
            is_usage="backend_args" in given,
        )
    if settings.workers > 1 and settings.redis_url is None:
        raise ConfigError(f"workers = {settings.workers} needs redis_url: workers have to share what they decided")
    if settings.search_tool != "off" and len(settings.search_roots) != 1:
        num_roots = len(settings.search_roots)
        raise ConfigError(
            f"search_tool = {settings.search_tool!r} needs one of search_roots, and there are {num_roots}"
        )
    if settings.search_tool == "deep" and settings.search_deep_model is None:
        raise ConfigError("search_tool = 'deep' needs search_deep_model")
    if settings.require_keys and not settings.keys and settings.keys_file is None and settings.redis_url is None:
        raise ConfigError("require_keys = true needs keys, keys_file or redis_url: there is nowhere to look keys up")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
