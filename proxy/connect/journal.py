"""What `sluice connect --write` found before it changed a setting, so that `--undo` can put it back.

One JSON file an agent, in the user's state folder, readable by its owner alone: a setting may hold a key.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.proxy.connect.documents import Form, UnreadableSettingsError


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting that was changed."""

    file: Path
    form: Form
    keys: tuple[str, ...]
    value: str
    """What it was set to."""
    was_there: bool
    before: Any
    """What it held; None where it was not there."""
    made_file: bool
    """Whether the file was made for it."""


class Journal:
    """The entries of each agent.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def of_user() -> Journal:
        """The user's own."""
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Journal(Path(base) / "sluice" / "connect")

    def read(self, agent: str) -> list[Entry]:
        """The entries of an agent, in the order of the changes; none where nothing was changed.

        Raises:
            UnreadableSettingsError: they cannot be read.
        """
        try:
            return self._entries(json.loads(self._file(agent).read_text("utf-8")))
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            raise UnreadableSettingsError(
                f"what was changed before cannot be read from {self._file(agent)}: put the settings back by hand, and "
                "delete that file"
            ) from None

    @staticmethod
    def _entries(rows: Any) -> list[Entry]:
        return [
            Entry(
                Path(row["file"]),
                Form(row["form"]),
                tuple(row["keys"]),
                row["value"],
                row["was_there"],
                row["before"],
                row["made_file"],
            )
            for row in rows
        ]

    def keep(self, agent: str, entries: Sequence[Entry]) -> None:
        """Keep these entries, in place of those that were kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "file": str(entry.file),
                "form": entry.form.value,
                "keys": list(entry.keys),
                "value": entry.value,
                "was_there": entry.was_there,
                "before": entry.before,
                "made_file": entry.made_file,
            }
            for entry in entries
        ]
        file = self._file(agent)
        new = file.with_suffix(".new")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
                json.dump(rows, out, indent=1)
            new.replace(file)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            raise OSError(error.errno, error.strerror, str(file)) from None  # which file, a full disk does not say

    def forget(self, agent: str) -> None:
        """Keep nothing of an agent."""
        self._file(agent).unlink(missing_ok=True)

    def _file(self, agent: str) -> Path:
        return self._folder / f"{agent}.json"
