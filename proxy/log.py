"""Log lines of the form `time level logger event key=value …` on stderr. Never content, never a credential.

Knows nothing of what is logged, except how to tell where an exception came from without its text: an exception's
message may quote a request.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from types import TracebackType

import click

logger = logging.getLogger("sluice.proxy")

_ODD = re.compile(r'[ "=\\]')


def set_up_logging(level: str) -> None:
    """Send the records of this package and of the server under it to stderr, and the warnings of libraries.

    Some libraries (the MCP SDK) set up logging of their own, chatty and in their own form, where nobody else has.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.root.handlers = [handler]
    for name in ("sluice", "uvicorn"):
        target = logging.getLogger(name)
        target.handlers = [handler]
        target.propagate = False
        # The server's own chatter (started, waiting …) is not worth a line at `info`.
        target.setLevel(level.upper() if name == "sluice" or level == "debug" else "WARNING")


def say(line: str) -> None:
    """Print a line for people to stderr. That it cannot be written (a full disk, say) is no reason not to serve."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def fields(event: str, **values: object) -> str:
    """Join an event and its values to one line; None values are left out."""
    return " ".join([event, *(f"{key}={_quoted(value)}" for key, value in values.items() if value is not None)])


def where(error: BaseException) -> str:
    """Name an exception by class and place, without its message."""
    place = "?"
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        place = f"{'/'.join(code.co_filename.split('/')[-2:])}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return f"{type(error).__name__}@{place}"


def _quoted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value)
    return text if text and text.isprintable() and _ODD.search(text) is None else repr(text)


class _Formatter(logging.Formatter):
    """One line a record; an exception is named by class and place."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage().strip().replace("\n", "\\n")
        suffix = "" if error is None else f" error={where(error)}"
        return f"{time}.{record.msecs:03.0f} {record.levelname} {message}{suffix}"
