"""Which commit a work tree stands at, read from git's files without running git."""

from __future__ import annotations

import re
from pathlib import Path

from sluice.search.index.scanner import read_regular_file

_MAX_BYTES = 4096
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_REFERENCE = re.compile(r"ref: (refs/[\w./@+-]{1,200})")


def read_head(root: Path) -> str:
    """The branch and commit at `root`, or an empty string where it is no work tree of git's.

    A linked worktree's `.git` file is followed to the git directory that it names; only `HEAD` and the reference in it
    are read there, and only what looks like them is returned.
    """
    git = root / ".git"
    try:
        if git.is_file():
            text = read_regular_file(git, _MAX_BYTES).decode("utf-8", "replace").strip()
            if not text.startswith("gitdir: "):
                return ""
            git = (root / text.removeprefix("gitdir: ")).resolve()
        head = _line(git / "HEAD")
    except OSError:
        return ""
    if _COMMIT.fullmatch(head) is not None:
        return head
    match = _REFERENCE.fullmatch(head)
    if match is None or ".." in match[1]:
        return ""
    for directory in (git, git.parent.parent):  # a worktree's references are with the repository's
        try:
            commit = _line(directory / match[1])
        except OSError:
            continue
        if _COMMIT.fullmatch(commit) is not None:
            return f"{match[1]} {commit}"
    return match[1]


def _line(path: Path) -> str:
    return read_regular_file(path, _MAX_BYTES).decode("ascii", "replace").strip()
