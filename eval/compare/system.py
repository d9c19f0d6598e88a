"""A proxy that is compared, described in a small TOML file: how it is started or reached, and what it is sent."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from sluice.compressor import Mode
from sluice.eval.child import ServerProcess, serve_command
from sluice.eval.errors import SpecError
from sluice.eval.recorder import MODEL

KNOWN = ("headroom", "headroom-token")
"""Systems that are described here, as `<name>.toml` beside this module."""
OURS = (Mode.SAFE, Mode.BALANCED, Mode.AGGRESSIVE)


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One proxy. In `start`, `{port}` is where it has to listen and `{upstream}` the origin it forwards to."""

    name: str
    """Names its row."""
    start: str = ""
    """Command line that starts it; empty where `url` names one that runs."""
    url: str = ""
    """Origin of one that runs already and forwards to `recorder_port`."""
    recorder_port: int = 0
    """Port of 127.0.0.1 to which it forwards; 0 takes a free one."""
    ready: str = "/v1/models"
    """Path that answers with 200 once it takes requests."""
    headers: dict[str, str] = {}
    """Sent with every request."""
    env: dict[str, str] = {}
    """Added to the environment that it is started in."""
    model: str = MODEL
    """Named in the requests."""
    warm_up: int = 1
    """Small requests that are sent first and not counted."""
    start_timeout_s: float = 120.0
    """Longest wait for it to be ready, in seconds."""

    def process(self, upstream: str) -> ServerProcess | None:
        """Make the process that runs it; None where one runs already."""
        if not self.start:
            return None
        command = [part.replace("{upstream}", upstream) for part in shlex.split(self.start)]
        return ServerProcess(
            command, name=self.name, ready_path=self.ready, env=self.env, start_timeout_s=self.start_timeout_s
        )


def ours(mode: Mode, prices: str, serve_arguments: Sequence[str] = ()) -> System:
    """Sluice itself, in one of its modes.

    Args:
        mode: asked for in a header.
        prices: a key of `PRICES`: whose cache it is told to reckon with.
        serve_arguments: more flags of `sluice serve`.
    """
    arguments = ["--upstream", "{upstream}", "--provider", prices, "--log-level", "warning", *serve_arguments]
    return System(
        name=mode.value,
        start=shlex.join(serve_command(arguments)),
        ready="/readyz",
        headers={"x-sluice-mode": mode.value},
    )


def load_systems(name: str) -> list[System]:
    """Read the systems of a TOML file (`[[system]]`, or one at the top level), or one that is known by name.

    Raises:
        SpecError: there is no such file, or it describes no system.
    """
    path = Path(str(files("sluice.eval.compare").joinpath(f"{name}.toml"))) if name in KNOWN else Path(name)
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        found = msgspec.convert(data.get("system", [data]), list[System])
    except OSError as error:
        hint = f"; known by name: {', '.join(KNOWN)}"
        raise SpecError(f"{path}: {error.strerror}{hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SpecError(f"{path}: {error}") from None
    for system in found:
        if bool(system.start) == bool(system.url):
            raise SpecError(f"{path}: system {system.name!r} needs one of start and url")
        try:
            shlex.split(system.start)
        except ValueError as error:
            raise SpecError(f"{path}: system {system.name!r}: start = {system.start!r}: {error}") from None
        if system.url and not system.recorder_port:
            raise SpecError(f"{path}: system {system.name!r} has a url, so it needs the recorder_port it forwards to")
    return found
