"""Lists the files of a tree that are worth an index, with what tells whether one changed. Never leaves the root.

Symbolic links are not followed (so there are no loops and no way out), nothing but regular files is opened (a FIFO
would hang), ignored directories are not entered, and what vanishes in between is passed over.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sluice.search.errors import UnreadableRootError
from sluice.search.index.ignore import IgnoreFile, is_ignored, parse_ignore_file
from sluice.search.index.rules import MAX_FILE_BYTES, SKIPPED_DIRECTORIES, skip_by_name

MAX_FILES = 200_000
MAX_DEPTH = 64
MAX_IGNORE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file's metadata say; two equal states are taken to mean equal bytes (but see `is_racy`)."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """From `os.stat`."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def is_racy(self, read_at_ns: int) -> bool:
        """Whether the file may have changed after it was read without its time stamp moving (as git calls it).

        A stamp that lies further ahead is of another clock: what is written now gets another.
        """
        return abs(read_at_ns - self.mtime_ns) < _CLOCK_STEP_NS


_CLOCK_STEP_NS = 50_000_000
"""File systems stamp in steps of the kernel's clock, some milliseconds; 50 ms is above all that are in use."""


@dataclass
class Scanner:
    """Scans one root again and again; .gitignore files and verdicts are kept between scans while they hold.

    Attributes:
        root: absolute and resolved.
        truncated: whether the last scan stopped at `MAX_FILES`.
    """

    root: Path
    truncated: bool = False
    _ignore_files: dict[str, tuple[FileState, IgnoreFile]] = field(default_factory=dict)
    _verdicts: dict[str, bool] = field(default_factory=dict)

    def scan(self) -> dict[str, FileState]:
        """All files worth an index, by path relative to the root.

        Raises:
            UnreadableRootError: the root is no directory, or cannot be listed.
        """
        files: dict[str, FileState] = {}
        self.truncated = False
        try:
            os.scandir(self.root).close()
        except OSError as error:
            raise UnreadableRootError(f"cannot list {str(self.root)!r}: {error.strerror}") from error
        if len(self._verdicts) > 2 * MAX_FILES:  # those of names that are long gone are kept, too
            self._verdicts.clear()
        for path, state in self._walk():
            if len(files) >= MAX_FILES:
                self.truncated = True
                break
            files[path] = state
        return files

    def _walk(self) -> Iterator[tuple[str, FileState]]:
        pending: list[tuple[str, tuple[IgnoreFile, ...], int]] = [("", (), 0)]
        while pending:
            directory, inherited, depth = pending.pop()
            try:
                with os.scandir(f"{self.root}/{directory}") as listing:
                    entries = list(listing)
            except OSError:
                continue  # gone meanwhile, or not ours to read
            rules = self._rules_here(directory, inherited, entries)
            for entry in entries:
                try:
                    path = directory + entry.name
                    if not path.isascii():
                        path.encode()  # names that are no text cannot be answered with
                    if entry.is_symlink():
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if depth < MAX_DEPTH and self._wants_directory(path, entry.name, rules):
                            pending.append((path + "/", rules, depth + 1))
                        continue
                    if self._is_unwanted(path, rules):
                        continue
                    status = entry.stat(follow_symlinks=False)
                except (OSError, UnicodeEncodeError):
                    continue
                if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= MAX_FILE_BYTES:
                    yield path, FileState.of(status)

    def _rules_here(
        self, directory: str, inherited: tuple[IgnoreFile, ...], entries: list[os.DirEntry[str]]
    ) -> tuple[IgnoreFile, ...]:
        entry = next((entry for entry in entries if entry.name == ".gitignore"), None)
        known = self._ignore_files.get(directory)
        try:
            if entry is None or not entry.is_file(follow_symlinks=False):
                raise FileNotFoundError
            state = FileState.of(entry.stat(follow_symlinks=False))
            if known is None or known[0] != state:
                data = read_regular_file(self.root / directory / ".gitignore", MAX_IGNORE_BYTES)
                known = (state, parse_ignore_file(data.decode("utf-8-sig", "replace"), directory))
                self._ignore_files[directory] = known
                self._verdicts.clear()
        except OSError:
            if known is not None:
                del self._ignore_files[directory]
                self._verdicts.clear()
            return inherited
        return (*inherited, known[1])

    def _wants_directory(self, path: str, name: str, rules: tuple[IgnoreFile, ...]) -> bool:
        if name in SKIPPED_DIRECTORIES or name.endswith((".egg-info", ".dist-info")):
            return False
        verdict = self._verdicts.get(path + "/")
        if verdict is None:
            verdict = self._verdicts[path + "/"] = is_ignored(path, rules, is_directory=True)
        return not verdict

    def _is_unwanted(self, path: str, rules: tuple[IgnoreFile, ...]) -> bool:
        verdict = self._verdicts.get(path)
        if verdict is None:
            verdict = skip_by_name(path) is not None or is_ignored(path, rules, is_directory=False)
            self._verdicts[path] = verdict
        return verdict


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file without following a link and without ever waiting on a FIFO or device.

    Raises:
        OSError: it is gone, no regular file, a link, or longer than `max_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{str(path)!r} is no regular file")
        if status.st_size > max_bytes:
            raise OSError(f"{str(path)!r} is longer than {max_bytes} bytes")
        parts: list[bytes] = []
        remaining = max_bytes + 1
        while remaining > 0 and (part := os.read(descriptor, min(remaining, 1 << 20))):
            parts.append(part)
            remaining -= len(part)
        if remaining <= 0:
            raise OSError(f"{str(path)!r} grew past {max_bytes} bytes while it was read")
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_inside(root: Path, path: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a file below a root; no part of the way may be a link, nor lead out.

    Raises:
        OSError: as `read_regular_file`, or the path leads out of the root.
    """
    target = root / path
    if path.startswith(("/", "..")) or os.path.normpath(path) != path:
        raise OSError(f"{path!r} is not a path below the root")
    if os.path.realpath(target.parent) != str(target.parent):
        raise OSError(f"{path!r} leads through a link")
    return read_regular_file(target, max_bytes)


def blob_hash(data: bytes) -> bytes:
    """The 20 bytes under which git knows a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).digest()
