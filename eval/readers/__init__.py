"""Reads recorded conversations in the formats that agents leave behind, told apart by their content.

Each format has a module with a `Format`; the first that knows one of a file's first values reads the file. Files of the
evaluation's own form go through as they are. What several processes of a proxy recorded is read as one file.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec

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
ALIKE = (responses.FORMAT, anthropic.FORMAT, chat.FORMAT)
"""Formats of which one value may look like another's: all that is looked at decides."""
SUFFIXES = (".jsonl", ".json", ".traj", ".zst")
NUM_LOOKED_AT = 50
"""Values of a file that are looked at to tell its format: session files begin with lines that say little."""
EVENT_FILE = re.compile(r"(?:event-)?(\d+)(?:-[0-9a-fA-F-]+)?\.json")
EVENT_PAGES = "event_cache"
"""Folder in which OpenHands repeats its events, by the page."""


def read_conversations(*paths: Path) -> Iterator[TraceLine]:
    """Stream the conversations of files, and of all files in folders and below; what proxies recorded comes last.

    Raises:
        TraceError: a file cannot be read, or is of no known format; of a folder, files of no known format are skipped.
    """
    records: list[Path] = []
    for path in paths:
        if path.is_dir():
            for file in _told_files(path):
                yield from _conversations(file, records)
            continue
        if path.exists() and not path.is_file():
            raise TraceError(
                str(path), None, "neither a file nor a folder: it is read more than once, so copy it first"
            )
        if (named := _told_file(path)) is not None:
            yield from _conversations(named, records)
    if records:
        yield from _recorded(records)


class UnknownFormatError(TraceError):
    """A file is of no known format."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file, or a folder of events, whose format is known."""

    path: Path
    format: Format | None
    """None: our own form."""
    lines: Iterable[TraceLine]
    """Of our own form."""
    values: Iterable[Value]
    """Of any other."""


def _told_files(folder: Path) -> Iterator[_File]:
    event_folders = set()
    for file in sorted(each for each in folder.rglob("*") if each.suffix in SUFFIXES and each.is_file()):
        try:
            if file.parent.name == "events" and EVENT_FILE.fullmatch(file.name):
                if file.parent not in event_folders:
                    event_folders.add(file.parent)
                    yield _told_apart(file.parent.parent, _events(file.parent))
            elif file.parent.name != EVENT_PAGES and (told := _told_file(file)) is not None:
                yield told
        except UnknownFormatError:
            continue


def _told_file(path: Path) -> _File | None:
    """Open a file and tell its format; None where there is nothing in it."""
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        return None
    if _is_own(first.data):
        return _File(path, None, chain([first], lines), ())
    return _told_apart(path, _values(path, first, lines))


def _told_apart(path: Path, values: Iterator[Value]) -> _File:
    looked_at: list[Value] = []
    known: set[str] = set()
    broken: UnknownFormatError | None = None
    try:
        for value in islice(values, NUM_LOOKED_AT):
            looked_at.append(value)
            known |= {each.name for each in FORMATS if each.knows(value.data)}
            if known - {each.name for each in ALIKE}:
                break
    except UnknownFormatError as error:
        broken = error
    found = next((each for each in FORMATS if each.name in known), None)
    if found is None:
        names = ", ".join(each.name for each in FORMATS)
        raise broken or UnknownFormatError(str(path), None, f"not a recorded conversation in a known format ({names})")
    return _File(path, found, (), _all_values(looked_at, broken, values))


def _all_values(
    looked_at: Iterable[Value], broken: UnknownFormatError | None, rest: Iterable[Value]
) -> Iterator[Value]:
    yield from looked_at
    if broken is not None:
        raise broken
    yield from rest


def _conversations(file: _File, records: list[Path]) -> Iterator[TraceLine]:
    """The conversations of a file; one that a proxy recorded is noted instead, to be read with all others."""
    if file.format is None:
        yield from file.lines
    elif file.format is record.FORMAT:
        records.append(file.path)
    else:
        yield from _read(file.format, ((str(file.path), value) for value in file.values))


def _read(found: Format, placed: Iterable[tuple[str, Value]]) -> Iterator[TraceLine]:
    """Read values, each with the path of its file."""
    places: list[tuple[str, int]] = []

    def counted() -> Iterator[Value]:
        for path, value in placed:
            places.append((path, value.number))
            yield Value(len(places), value.data)

    try:
        for conversation in found.read(counted()):
            path, number = places[conversation.number - 1]
            yield TraceLine(path, number, _own(Path(path), number, conversation))
    except UnknownFormatError as error:  # known by now, so that nothing of it may be passed over
        raise TraceError(error.path, error.line, error.problem) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # the shape of what others wrote is not ours
        path, number = places[-1]
        raise TraceError(path, number, f"as {found.name}: {error}") from error


def _recorded(paths: Sequence[Path]) -> Iterator[TraceLine]:
    """Read what the processes of a proxy recorded, each into a file of its own, in the order of time."""

    def time_s(placed: tuple[str, Value]) -> float:
        time = placed[1].data.get("time") if isinstance(placed[1].data, dict) else None
        return time if isinstance(time, (int, float)) else 0.0

    yield from _read(record.FORMAT, heapq.merge(*map(_opened_late, paths), key=time_s))


def _opened_late(path: Path) -> Iterator[tuple[str, Value]]:
    """A file's values. Between the first and the second it is closed: its turn may come late, after many others'."""
    for num_skipped, num_taken in ((0, 1), (1, None)):
        lines = read_lines(path)
        first = next(lines, None)
        if first is not None:
            values = _values(path, first, lines)
            yield from ((str(path), value) for value in islice(values, num_skipped, num_taken))


def _own(path: Path, number: int, found: Recorded) -> bytes:
    return encode(
        {
            "id": found.id or f"{path.name}:{number}",
            "source": found.agent,
            "agent": found.agent,
            "messages": found.messages,
            "observation_indexes": found.observation_indexes,
        }
    )


class _Head(msgspec.Struct):
    id: msgspec.Raw
    source: msgspec.Raw
    agent: msgspec.Raw
    messages: msgspec.Raw
    sessionId: msgspec.Raw | None = None  # noqa: N815 (a session file's)


def _is_own(line: bytes) -> bool:
    if not all(key in line for key in (b'"id"', b'"source"', b'"agent"', b'"messages"')):
        return False
    try:
        return _decode_head(line).sessionId is None
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, ValueError):  # half a surrogate pair, which the standard library reads, or no JSON
        try:
            data = json.loads(line)
        except ValueError:
            return True  # what is wrong in it is told by who parses it
        return isinstance(data, dict) and {"id", "source", "agent", "messages"} <= data.keys()


_decode_head = msgspec.json.Decoder(_Head).decode


def _values(path: Path, first: TraceLine, lines: Iterator[TraceLine]) -> Iterator[Value]:
    """The JSON values of a file: one a line, or the whole file as one.

    Raises:
        UnknownFormatError: what is there is no JSON.
    """
    try:
        value: Any = json.loads(first.data)
    except ValueError as error:
        rest = b"\n".join((first.data, *(line.data for line in lines)))
        try:
            yield Value(1, json.loads(rest))
        except ValueError:
            raise UnknownFormatError(str(path), first.number, str(error)) from None
        return
    yield Value(first.number, value)
    for line in lines:
        try:
            yield Value(line.number, json.loads(line.data))
        except ValueError as error:
            raise UnknownFormatError(str(path), line.number, str(error)) from None


def _events(folder: Path) -> Iterator[Value]:
    """The events of a folder with a file for each, in their order."""
    found = [(int(match[1]), file) for file in folder.iterdir() if (match := EVENT_FILE.fullmatch(file.name))]
    for number, (_, file) in enumerate(sorted(found), 1):
        try:
            yield Value(number, json.loads(file.read_bytes()))
        except OSError as error:
            raise TraceError(str(file), None, str(error)) from None
        except ValueError as error:
            raise UnknownFormatError(str(file), None, str(error)) from None
