"""Reads recorded conversations in the formats that agents leave behind, told apart by their content.

Each format has a module with a `Format`; the first that knows one of a file's first values reads the file. Files of the
evaluation's own form go through as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sluice.eval.data import TraceLine, read_lines
from sluice.eval.errors import TraceError
from sluice.eval.message import encode
from sluice.eval.readers import (
    anthropic,
    chat,
    claude_code,
    codex,
    mini_swe_agent,
    openhands,
    record,
    responses,
    swe_agent,
)
from sluice.eval.readers.base import Format, Recorded, Value

FORMATS: tuple[Format, ...] = (
    record.FORMAT,
    claude_code.FORMAT,
    codex.FORMAT,
    swe_agent.FORMAT,
    mini_swe_agent.FORMAT,
    openhands.FORMAT,
    responses.FORMAT,
    anthropic.FORMAT,
    chat.FORMAT,
)
"""The narrower ones first."""
SUFFIXES = (".jsonl", ".json", ".traj", ".zst")
NUM_LOOKED_AT = 50
"""Values of a file that are looked at to tell its format: session files begin with lines that say little."""
EVENT_FILE = re.compile(r"(?:event-)?(\d+)(?:-[0-9a-fA-F-]+)?\.json")


def read_conversations(path: Path) -> Iterator[TraceLine]:
    """Stream the conversations of a file, or of all files in a folder and below.

    Raises:
        TraceError: a file cannot be read, or is of no known format; of a folder, files of no known format are skipped.
    """
    if not path.is_dir():
        yield from _file(path)
        return
    for file in sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file()):
        if file.parent.name == "events" and EVENT_FILE.fullmatch(file.name):
            if file == min(_event_files(file.parent)):
                yield from _event_folder(file.parent)
            continue
        try:
            yield from _file(file)
        except UnknownFormatError:
            continue


class UnknownFormatError(TraceError):
    """A file is of no known format."""


def _file(path: Path) -> Iterator[TraceLine]:
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        return
    if _is_own(first.data):
        yield first
        yield from lines
        return
    yield from _told_apart(path, _values(path, first, lines))


def _told_apart(path: Path, values: Iterator[Value]) -> Iterator[TraceLine]:
    looked_at: list[Value] = []
    for value in islice(values, NUM_LOOKED_AT):
        looked_at.append(value)
        found = next((each for each in FORMATS if each.knows(value.data)), None)
        if found:
            yield from _read(path, found, chain(looked_at, values))
            return
    names = ", ".join(each.name for each in FORMATS)
    raise UnknownFormatError(str(path), None, f"not a recorded conversation in a known format ({names})")


def _read(path: Path, found: Format, values: Iterator[Value]) -> Iterator[TraceLine]:
    number = 1

    def counted() -> Iterator[Value]:
        nonlocal number
        for value in values:
            number = value.number
            yield value

    try:
        for conversation in found.read(counted()):
            yield TraceLine(str(path), conversation.number, _own(path, conversation))
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # the shape of what others wrote is not ours
        if isinstance(error, TraceError):
            raise
        raise TraceError(str(path), number, f"as {found.name}: {error}") from error


def _own(path: Path, found: Recorded) -> bytes:
    return encode(
        {
            "id": found.id or f"{path.name}:{found.number}",
            "source": found.agent,
            "agent": found.agent,
            "messages": found.messages,
            "observation_indexes": found.observation_indexes,
        }
    )


def _is_own(line: bytes) -> bool:
    # Looked for in the bytes: a line may hold megabytes, and what is wrong in it is told by who parses it.
    return all(key in line for key in (b'"id"', b'"source"', b'"agent"', b'"messages"')) and b'"sessionId"' not in line


def _values(path: Path, first: TraceLine, lines: Iterator[TraceLine]) -> Iterator[Value]:
    """The JSON values of a file: one a line, or the whole file as one."""
    try:
        value: Any = json.loads(first.data)
    except ValueError as error:
        rest = b"\n".join((first.data, *(line.data for line in lines)))
        try:
            yield Value(1, json.loads(rest))
        except ValueError:
            raise TraceError(str(path), first.number, str(error)) from None
        return
    yield Value(first.number, value)
    for line in lines:
        try:
            yield Value(line.number, json.loads(line.data))
        except ValueError as error:
            raise TraceError(str(path), line.number, str(error)) from None


def _event_files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if EVENT_FILE.fullmatch(file.name)]


def _event_folder(folder: Path) -> Iterator[TraceLine]:
    def order(file: Path) -> int:
        match = EVENT_FILE.fullmatch(file.name)
        return int(match[1]) if match else 0

    def events() -> Iterator[Value]:
        for number, file in enumerate(sorted(_event_files(folder), key=order), 1):
            try:
                yield Value(number, json.loads(file.read_bytes()))
            except (OSError, ValueError) as error:
                raise TraceError(str(file), None, str(error)) from None

    yield from _told_apart(folder.parent, events())
