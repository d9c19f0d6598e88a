"""Reads recorded conversations in the formats that agents leave behind, told apart by their content.

Each format has a module with a `Format`. Files of the evaluation's own form go through as they are. What several
processes of a proxy recorded is read as one file.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from sluice.eval.data import TraceLine, read_lines
from sluice.eval.errors import TraceError
from sluice.eval.message import encode
from sluice.eval.readers import record
from sluice.eval.readers.base import Format, Recorded, Value
from sluice.eval.readers.told import ToldFile, told_file, told_files
from sluice.eval.readers.values import UnknownFormatError, values_of


def read_conversations(*paths: Path) -> Iterator[TraceLine]:
    """Stream the conversations of files, and of all files in folders and below; what proxies recorded comes last.

    Raises:
        TraceError: a file cannot be read, or is of no known format; of a folder, files of no known format are skipped.
    """
    records: list[Path] = []
    for path in paths:
        if path.is_dir():
            for file in told_files(path):
                yield from _conversations(file, records)
            continue
        if path.exists() and not path.is_file():
            raise TraceError(
                str(path), None, "neither a file nor a folder: it is read more than once, so copy it first"
            )
        if (named := told_file(path)) is not None:
            yield from _conversations(named, records)
    if records:
        yield from _recorded(records)


def _conversations(file: ToldFile, records: list[Path]) -> Iterator[TraceLine]:
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
            values = values_of(path, first, lines)
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
