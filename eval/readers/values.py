"""The JSON values of a file, or of a folder with a file for each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sluice.eval.data import TraceLine
from sluice.eval.errors import TraceError
from sluice.eval.readers.base import Value

EVENT_FILE = re.compile(r"(?:event-)?(\d+)(?:-[0-9a-fA-F-]+)?\.json")


class UnknownFormatError(TraceError):
    """A file is of no known format."""


def values_of(path: Path, first: TraceLine, lines: Iterator[TraceLine]) -> Iterator[Value]:
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


def events_of(folder: Path) -> Iterator[Value]:
    """The events of a folder with a file for each, in their order."""
    found = [(int(match[1]), file) for file in folder.iterdir() if (match := EVENT_FILE.fullmatch(file.name))]
    for number, (_, file) in enumerate(sorted(found), 1):
        try:
            yield Value(number, json.loads(file.read_bytes()))
        except OSError as error:
            raise TraceError(str(file), None, str(error)) from None
        except ValueError as error:
            raise UnknownFormatError(str(file), None, str(error)) from None
