"""What is known of a tool result's origin. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a tool result shows."""

    READ = "read"
    """A file's content, or part of it."""
    SEARCH = "search"
    """Lines that match a query, from one file or many."""
    LISTING = "listing"
    """Names of files."""
    RUN = "run"
    """The output of tests, a build, or any other program."""
    DIFF = "diff"
    LOG = "log"
    """A history: commits, a journal, the tail of a log file."""
    JSON = "json"
    WEB = "web"
    EDIT = "edit"
    """The report of a change to files."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a tool result comes from, as far as its call tells."""

    kind: Kind
    tool: str = ""
    """The tool's name as called; empty where no call is known."""
    path: str | None = None
    """The file that was read, the one file that was searched, or the file that was changed."""
    first_line: int | None = None
    """Number, in the file and from 1, of the first line that is shown."""
    last_line: int | None = None
    """Last line that was asked for, inclusive."""
    command: str | None = None
    """The shell command, where there was one."""
    edited_paths: tuple[str, ...] = ()
    """Files that the call changes, as far as can be told."""
    num_head_lines: int = 0
    """Lines of the result that stand before what the call shows; see `heads.py`."""


def same_path(one: str, other: str) -> bool:
    """Whether two spellings can name one file: equal, or one is the tail of the other (`a.py`, `/src/a.py`)."""
    return one == other or one.endswith("/" + other) or other.endswith("/" + one)
