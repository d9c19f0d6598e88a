"""Where a conversation's tokens come from: by tool, by kind of result, by file. Plain functions of messages.

Only what is new in a turn is looked at, so that every text counts once, when it arrives. Lengths are in characters;
tokens are estimated from them as decisions do (`CHARS_PER_TOKEN`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sluice.compressor import Dialect, MalformedMessageError, Message
from sluice.compressor.economics import CHARS_PER_TOKEN
from sluice.compressor.provenance import Origins

MAX_TOOLS = 64
"""Names of tools that a process tells apart; a client may send any number of them."""
OTHER = "other"
_MAX_NAME_CHARS = 48


class Arrived(NamedTuple):
    """The messages that are new in a request."""

    dialect: Dialect
    came: Sequence[bytes]
    """As the client sent them."""
    went: Sequence[bytes]
    """As they were forwarded."""


class Share(NamedTuple):
    """One text's part in a request."""

    kind: str
    """A tool result's kind; of other texts their author."""
    tool: str
    """That gave the result; empty for what no tool gave."""
    path: str | None
    """The one file that the result shows, where that is known."""
    num_chars_in: int
    num_chars_out: int


def shares_of(arrived: Arrived) -> Iterator[Share]:
    """What each text comes to, in order; a message of another form counts as its author's."""
    origins = Origins()
    for came, went in zip(arrived.came, arrived.went, strict=True):
        message = _parsed(came, arrived.dialect)
        if message is None:
            yield Share(OTHER, "", None, len(came), len(went))
            continue
        forwarded = message if went == came else _parsed(went, arrived.dialect)
        lengths = [len(text.text) for text in forwarded.texts] if forwarded is not None else []
        if len(lengths) != len(message.texts):
            lengths = [len(text.text) for text in message.texts]
        segments = {segment.index: segment.provenance for segment in origins.segments(message)}
        origins.add(message)
        for index, (text, num_out) in enumerate(zip(message.texts, lengths, strict=True)):
            found = segments.get(index)
            if found is None:
                yield Share(message.role, "", None, len(text.text), num_out)
            else:
                yield Share(found.kind, found.tool, found.path, len(text.text), num_out)
        num_called = sum(len(call.name) + len(call.arguments) for call in message.calls)
        if num_called:
            yield Share(message.role, "", None, num_called, num_called)


class ToolNames:
    """Bounds how many names of tools are told apart."""

    def __init__(self, max_names: int = MAX_TOOLS) -> None:
        self._max_names = max_names
        self._known: set[str] = set()

    def of(self, tool: str) -> str:
        """The name to count under: short, printable, and `other` once there are too many."""
        name = "".join(char if char.isprintable() else "?" for char in tool[:_MAX_NAME_CHARS])
        if name not in self._known:
            if len(self._known) >= self._max_names:
                return OTHER
            self._known.add(name)
        return name


def counters_of(shares: Iterable[Share], names: ToolNames) -> dict[str, float]:
    """The shares as counters: `kind.NAME.in`, `kind.NAME.out`, `tool.NAME.in`, `tool.NAME.out`, in tokens."""
    counters: dict[str, float] = {}
    for share in shares:
        groups = [f"kind.{share.kind}"] + ([f"tool.{names.of(share.tool)}"] if share.tool else [])
        for group in groups:
            for side, num_chars in (("in", share.num_chars_in), ("out", share.num_chars_out)):
                name = f"{group}.{side}"
                counters[name] = counters.get(name, 0.0) + num_chars / CHARS_PER_TOKEN
    return {name: value for name, value in counters.items() if value}


def _parsed(raw: bytes, dialect: Dialect) -> Message | None:
    try:
        return dialect.parse(raw)
    except MalformedMessageError:
        return None
