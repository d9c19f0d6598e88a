"""What the settings say, and whether they fit together. Reads them, starts nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from sluice.proxy.doctor.finding import Finding, bad, good, note
from sluice.proxy.errors import ConfigError
from sluice.proxy.settings import DEFAULT_CONFIG_FILE, Settings, load_settings

_MIN_TTL_FACTOR = 2


def read_settings(config: Path | None) -> tuple[Settings | None, list[Finding]]:
    """Load the settings as `sluice serve` would; None where it would refuse them."""
    file = config or (DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.is_file() else None)
    names = sorted(name for name in os.environ if name.startswith("SLUICE_"))
    sources = " and ".join(([str(file)] if file else []) + (names and [", ".join(names)]))
    try:
        settings = load_settings({}, config)
    except ConfigError as error:
        return None, [bad("settings", str(error), f"change it in {sources}" if sources else "give other flags")]
    return settings, [good("settings", f"from {sources}" if sources else "all at their defaults: no sluice.toml here")]


def examine_settings(settings: Settings) -> Iterator[Finding]:
    """Look for settings that do not do what they seem to."""
    if not settings.all_upstreams and settings.backend == "none":
        yield note(
            "upstream",
            "none is set: sluice serve will want --upstream or --backend",
            'put upstream = "https://api.openai.com" into sluice.toml',
        )
    if settings.redis_url is None:
        yield note(
            "state",
            f"in the process, up to {settings.state_max_bytes / 2**20:.0f} MiB: a restart makes every prefix new, once",
            'set redis_url = "redis://127.0.0.1:6379/0"',
        )
    least_s = _MIN_TTL_FACTOR * settings.profile.ttl_s
    if settings.ttl_s < least_s:
        yield bad(
            "ttl_s",
            f"{settings.ttl_s:g} s is less than twice the provider's cache life: prefixes change while they are cached",
            f"set ttl_s = {least_s:g} or more",
        )
    if settings.record is not None:
        yield note("record", f"requests are written to {settings.record}, content and all", "unset record to stop it")
    if settings.holdout == 0:
        yield note("holdout", "0: the saving is worked out, not measured", "set holdout = 0.05 to have it measured")
    if settings.keys_file is not None and settings.keys_file.is_file() and _is_open(settings.keys_file):
        yield bad("keys_file", f"others can read {settings.keys_file}", f"chmod 600 {settings.keys_file}")


def examine_environment(environment: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    """Look for variables that send requests elsewhere."""
    proxies = [name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if environment.get(name)]
    if proxies and settings.all_upstreams:
        yield note(
            "environment",
            f"{', '.join(proxies)}: Sluice connects to its upstreams directly and does not use it",
            "let this machine reach the upstream, or name a relay as the upstream",
        )


def _is_open(file: Path) -> bool:
    return os.name == "posix" and bool(file.stat().st_mode & 0o044)
