"""Tells the format of a recording by its content: the first format that knows one of its first values has it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgspec

from sluice.eval.data import TraceLine, read_lines
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
from sluice.eval.readers.base import Format, Value
from sluice.eval.readers.values import EVENT_FILE, UnknownFormatError, events_of, values_of

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
EVENT_PAGES = "event_cache"
"""Folder in which OpenHands repeats its events, by the page."""


@dataclass(frozen=True, slots=True)
class ToldFile:
    """A file, or a folder of events, whose format is known."""

    path: Path
    format: Format | None
    """None: our own form."""
    lines: Iterable[TraceLine]
    """Of our own form."""
    values: Iterable[Value]
    """Of any other."""


def told_files(folder: Path) -> Iterator[ToldFile]:
    """All recordings in a folder and below, in order of their names; files of no known format are passed over."""
    event_folders = set()
    for file in sorted(each for each in folder.rglob("*") if each.suffix in SUFFIXES and each.is_file()):
        try:
            if file.parent.name == "events" and EVENT_FILE.fullmatch(file.name):
                if file.parent not in event_folders:
                    event_folders.add(file.parent)
                    yield _told_apart(file.parent.parent, events_of(file.parent))
            elif file.parent.name != EVENT_PAGES and (told := told_file(file)) is not None:
                yield told
        except UnknownFormatError:
            continue


def told_file(path: Path) -> ToldFile | None:
    """Open a file and tell its format; None where there is nothing in it.

    Raises:
        TraceError: it cannot be read; of no known format (UnknownFormatError).
    """
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        return None
    if _is_own(first.data):
        return ToldFile(path, None, chain([first], lines), ())
    return _told_apart(path, values_of(path, first, lines))


def _told_apart(path: Path, values: Iterator[Value]) -> ToldFile:
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
    return ToldFile(path, found, (), _all_values(looked_at, broken, values))


def _all_values(
    looked_at: Iterable[Value], broken: UnknownFormatError | None, rest: Iterable[Value]
) -> Iterator[Value]:
    yield from looked_at
    if broken is not None:
        raise broken
    yield from rest


class _Head(msgspec.Struct):
    id: msgspec.Raw
    source: msgspec.Raw
    agent: msgspec.Raw
    messages: msgspec.Raw
    sessionId: msgspec.Raw | None = None  # noqa: N815 (a session file's)


_decode_head = msgspec.json.Decoder(_Head).decode


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
