"""What the settings say, and whether they fit together. Reads them and the files that they name, starts nothing."""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sluice.backend.hosts import name_of
from sluice.proxy.access.keyring import FileKeys
from sluice.proxy.doctor.finding import Finding, Verdict, bad, good, note
from sluice.proxy.errors import ConfigError
from sluice.proxy.load_settings import DEFAULT_CONFIG_FILE, load_settings
from sluice.proxy.meter import load_prices
from sluice.proxy.setting_errors import unknown_variables
from sluice.proxy.settings import Settings

_MIN_TTL_FACTOR = 2
_LEAST_FREE_BYTES = 100 * 2**20
_WILD = frozenset("*?[")


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


def doubts(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What `sluice serve` warns of at its start: settings with which it serves, but not as somebody meant it."""
    for finding in (*examine_settings(settings), *examine_environment(environment, settings)):
        if finding.verdict is Verdict.BAD:
            yield finding


def examine_settings(settings: Settings) -> Iterator[Finding]:
    """Look for settings that do not do what they seem to."""
    if not settings.all_upstreams and settings.backend == "none":
        yield note(
            "upstream",
            "none is set: sluice serve will want --upstream or --backend",
            'put upstream = "https://api.openai.com" into sluice.toml',
        )
    yield from _examine_upstreams(settings)
    if settings.model is not None and settings.backend == "none":
        yield bad("model", f"{settings.model!r} is served by nobody: no backend is started", "set backend, or unset it")
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
    if settings.holdout == 0:
        yield note("holdout", "0: the saving is worked out, not measured", "set holdout = 0.05 to have it measured")
    if settings.holdout > 0.5:
        yield bad(
            "holdout",
            f"{settings.holdout:.0%} of new conversations go through untouched and save nothing",
            "set holdout = 0.05",
        )
    yield from _examine_names(settings)
    yield from _examine_files(settings)


def _examine_upstreams(settings: Settings) -> Iterator[Finding]:
    """Upstreams that no request can reach, because earlier ones take all that they would serve."""
    taken: dict[str, str] = {}
    fallbacks = {name for upstream in settings.all_upstreams for name in upstream.fallback}
    for upstream in settings.all_upstreams:
        # A name counts before any pattern, so that only patterns are taken by a `*`.
        firsts = [
            taken.get(model) or (taken.get("*") if not _WILD.isdisjoint(model) else None) for model in upstream.models
        ]
        if firsts and all(firsts) and upstream.name not in fallbacks:
            by = ", ".join(dict.fromkeys(name for name in firsts if name))
            yield bad(
                f"upstream {upstream.name}",
                f"no model is asked of it: {by} stands before it and takes {', '.join(upstream.models)}",
                "give each its own models, or have it be a fallback",
            )
        for model in upstream.models:
            taken.setdefault(model, upstream.name)


def _examine_names(settings: Settings) -> Iterator[Finding]:
    """Names that no request can bear."""
    for host in settings.allowed_hosts:
        is_plain = name_of(f"[{host}]" if _is_ipv6(host) else host) == host
        if not host or "*" in host or not is_plain:
            yield bad(
                "allowed_hosts", f"{host!r} is no plain host name and lets nobody in", "leave scheme, port and * out"
            )
    for origin in settings.allowed_origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path):
            yield bad("allowed_origins", f"{origin!r} is no origin and lets nobody in", "write http://HOST:PORT")
    if settings.otlp_endpoint is not None:
        parts = urlsplit(settings.otlp_endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            yield bad(
                "otlp_endpoint",
                f"{settings.otlp_endpoint!r} is no http:// or https:// URL: nothing is sent",
                "write http://HOST:4318 (gRPC, on port 4317, is not spoken)",
            )


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _examine_files(settings: Settings) -> Iterator[Finding]:
    """Files and folders that cannot be used, or that others can read."""
    if settings.record is not None:
        yield note("record", f"requests are written to {settings.record}, content and all", "unset record to stop it")
        if not _may_write(settings.record):
            yield bad("record", f"{settings.record} cannot be written", "chown or chmod it, or set another folder")
        elif problem := _lack_of_room(settings.record):
            yield bad("record", f"{problem}: what does not fit is not written", "make room, or set another folder")
    try:
        load_prices(settings.prices_file)
    except ConfigError as error:
        yield bad("prices_file", str(error), "mend the file; its form is that of the shipped prices.toml")
    if settings.keys_file is not None:
        yield from _examine_keys(settings, settings.keys_file)
    cache = settings.search_cache_dir.expanduser()
    problem = f"{cache} cannot be written" if not _may_write(cache) else _lack_of_room(cache)
    if settings.search_roots and problem:
        yield bad(
            "search_cache_dir",
            f"{problem}: the search index is kept in memory and built anew at each start",
            "make room there, or set search_cache_dir to a folder that can be written",
        )


def _examine_keys(settings: Settings, file: Path) -> Iterator[Finding]:
    try:
        is_empty = not FileKeys(file).list()
    except ConfigError as error:
        yield bad("keys_file", str(error), "make it readable, or name another")
        return
    if is_empty and not settings.keys and settings.redis_url is None:
        yield bad("keys_file", f"{file} holds no key: every request gets 401", f"sluice keys --file {file} add NAME")
    elif file.is_file() and _is_open(file):
        yield bad("keys_file", f"others can read {file}", f"chmod 600 {file}")


def examine_environment(environment: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    """Look for variables that send requests elsewhere, and for those that are misspelt."""
    proxies = [name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if environment.get(name)]
    if proxies and settings.all_upstreams:
        yield note(
            "environment",
            f"{', '.join(proxies)}: Sluice connects to its upstreams directly and does not use it",
            "let this machine reach the upstream, or name a relay as the upstream",
        )
    for name, near in unknown_variables(environment, Settings.model_fields):
        yield bad("environment", f"{name} is no setting and does nothing", f"did you mean {near}?")


def _is_open(file: Path) -> bool:
    return os.name == "posix" and bool(file.stat().st_mode & 0o044)


def _may_write(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that is there. Makes nothing."""
    there = _nearest(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _lack_of_room(folder: Path) -> str:
    """Say so where a folder's disk is nearly full; empty where it is not."""
    free = shutil.disk_usage(_nearest(folder)).free
    return f"only {free / 2**20:,.0f} MiB are free where {folder} is" if free < _LEAST_FREE_BYTES else ""


def _nearest(folder: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if one.exists()), folder)
