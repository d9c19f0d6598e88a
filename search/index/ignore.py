"""The rules of .gitignore files: which paths a repository does not count as its own.

Follows gitignore(5): the last matching line decides, `!` re-includes, a leading or inner `/` anchors, a trailing one
means directories, `**` spans directories. What is under an ignored directory cannot be re-included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_PATTERNS = 5_000
"""Lines past this many are not read: a hostile file must not cost minutes."""
MAX_PATTERN_CHARS = 500
MAX_DOUBLE_STARS = 3
"""A pattern with more is not read."""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    is_negated: bool
    only_directories: bool


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """One .gitignore: where it stands and what it says."""

    directory: str
    """Relative to the root with a trailing `/`; empty at the root."""
    rules: tuple[_Rule, ...]

    def verdict(self, path: str, *, is_directory: bool) -> bool | None:
        """True: ignored; False: re-included; None: no line matches. `path` is below `directory`."""
        relative = path[len(self.directory) :]
        for rule in reversed(self.rules):
            if rule.only_directories and not is_directory:
                continue
            if rule.pattern.fullmatch(relative) is not None:
                return not rule.is_negated
        return None


def parse_ignore_file(text: str, directory: str) -> IgnoreFile:
    """Read a .gitignore's lines; lines that are no pattern are passed over, as git does."""
    rules: list[_Rule] = []
    for line in text.splitlines()[:MAX_PATTERNS]:
        rule = _parse_line(line)
        if rule is not None:
            rules.append(rule)
    return IgnoreFile(directory, tuple(rules))


def is_ignored(path: str, files: Sequence[IgnoreFile], *, is_directory: bool) -> bool:
    """Whether the deepest .gitignore that has an opinion ignores the path. `files` go from the root downwards."""
    for file in reversed(files):
        verdict = file.verdict(path, is_directory=is_directory)
        if verdict is not None:
            return verdict
    return False


def _parse_line(line: str) -> _Rule | None:
    if len(line) > MAX_PATTERN_CHARS or line.startswith("#"):
        return None
    line = re.sub(r"(?<!\\)[ \t]+$", "", line).rstrip("\r\n")
    is_negated = line.startswith("!")
    if is_negated or line.startswith(("\\!", "\\#")):
        line = line[1:]
    only_directories = line.endswith("/")
    line = line.rstrip("/")
    if not line:
        return None
    anchored = "/" in line
    line = line.removeprefix("/")
    try:
        pattern = re.compile(("" if anchored else "(?:.*/)?") + _translate(line), re.DOTALL)
    except re.error:
        return None
    return _Rule(pattern, is_negated, only_directories)


def _translate(glob: str) -> str:
    """A gitignore glob as a regular expression that no file name can make slow."""
    parts = glob.split("/")
    if parts.count("**") > MAX_DOUBLE_STARS:
        raise re.error("too many **")
    out: list[str] = []
    for at, part in enumerate(parts):
        is_last = at == len(parts) - 1
        if part == "**":
            out.append(".+" if is_last else "(?:.*/)?")
        else:
            out.append(_translate_name(part) + ("" if is_last else "/"))
    return "".join(out)


def _translate_name(glob: str) -> str:
    """A glob without `/`. Each star takes as little as the literal after it allows, for good: so does `fnmatch`."""
    pieces: list[list[str]] = [[]]
    index = 0
    while index < len(glob):
        char = glob[index]
        index += 1
        if char == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append([])
        elif char == "?":
            pieces[-1].append("[^/]")
        elif char == "[" and (end := _class_end(glob, index)) >= 0:
            body = glob[index:end].replace("\\", "\\\\").replace("[", "\\[")
            pieces[-1].append("(?!/)[" + ("^" + body[1:] if body[:1] in ("!", "^") else body) + "]")
            index = end + 1
        elif char == "\\" and index < len(glob):
            pieces[-1].append(re.escape(glob[index]))
            index += 1
        else:
            pieces[-1].append(re.escape(char))
    first, *rest = ["".join(piece) for piece in pieces]
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + "[^/]*" + last


def _class_end(glob: str, start: int) -> int:
    """Where the `]` of a class stands whose inside begins at `start`; -1 if there is none."""
    return glob.find("]", start + 2 if glob[start : start + 1] in ("!", "^") else start + 1)
