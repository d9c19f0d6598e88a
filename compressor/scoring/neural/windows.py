"""Cuts tool results into what a model reads: what was said before them, then their lines, then the next lines.

A line is read once, as it arrives. What the agent did with it since is told by features, so that a rewrite of the
history asks the model nothing new. Plain functions of the conversation's prefix; knows no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.said import Said
from sluice.compressor.scoring.neural.types import Window

_MAX_LINE_CHARS = 600
"""More of a line is not looked at, however few tokens it takes."""
_MAX_CHARS_PER_TOKEN = 8
"""Rarely more: what is clipped before it is tokenized fills its room."""


class Tokenizer(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        ...


@dataclass(frozen=True, slots=True)
class WindowShape:
    """How windows are laid out, in tokens. It belongs to a model: one that is trained on another reads another."""

    max_tokens: int
    """Of a window."""
    task: int
    """Of the first user message, at most."""
    user: int
    """Of the newest user message, at most, where that is another one."""
    history: int
    """Of what the agent wrote last, newest first, at most."""
    call: int
    """Of what the result is of, at most."""
    line: int
    """Of one line, at most, its end included."""
    overlap: int
    """Of the lines above, which a window that goes on in a result reads again without scoring them, at most."""
    begin: tuple[int, ...]
    """Token ids at the beginning of each window."""
    end_of_context: tuple[int, ...]
    end_of_line: tuple[int, ...]
    """What each line ends with; a model speaks of a line at the last of them."""

    def __post_init__(self) -> None:
        longest = len(self.begin) + self.task + self.user + self.history + self.call + len(self.end_of_context)
        if self.line <= len(self.end_of_line) or longest + self.overlap + self.line > self.max_tokens:
            raise ValueError(f"a window of {self.max_tokens} tokens does not hold its context and a line: {self}")

    def to_json(self) -> dict[str, Any]:
        """The shape as JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> WindowShape:
        """What `to_json` gave.

        Raises:
            ValueError: it is no shape.
        """
        try:
            parts: dict[str, Any] = {
                key: tuple(part) if isinstance(part, list) else part for key, part in value.items()
            }
            return cls(**parts)
        except TypeError as error:
            raise ValueError(f"no window shape: {error}") from error


class WindowMaker:
    """Makes windows; a segment's are worked out once.

    Args:
        tokenizer: the base model's.
        shape: of the windows.
    """

    def __init__(self, tokenizer: Tokenizer, shape: WindowShape) -> None:
        self._tokenizer = tokenizer
        self._shape = shape
        self._made: WeakKeyDictionary[SegmentEvidence, tuple[Window, ...]] = WeakKeyDictionary()

    def windows(self, evidence: Evidence, segments: Sequence[SegmentEvidence]) -> list[Window]:
        """The windows in which all lines of the segments are scored, each line in one of them, in order.

        Args:
            evidence: the conversation so far; of it only what was said before a segment is read.
            segments: of that conversation.
        """
        found: list[Window] = []
        for number, segment in enumerate(segments):
            made = self._made.get(segment)
            if made is None:
                made = self._made[segment] = tuple(self._of_segment(evidence, segment))
            found += [
                Window(one.token_ids, one.line_ends, one.num_context_tokens, number, one.first_line) for one in made
            ]
        return found

    def _of_segment(self, evidence: Evidence, segment: SegmentEvidence) -> Iterator[Window]:
        shape = self._shape
        context = self._context(evidence, segment)
        num_text_tokens = shape.line - len(shape.end_of_line)
        encoded = self._tokenizer.encode([body[:_MAX_LINE_CHARS] for body in segment.lines.bodies])
        lines = [[*ids[:num_text_tokens], *shape.end_of_line] for ids in encoded]
        first = 0
        while first < len(lines):
            ids = [*context, *_above(lines, first, shape.overlap)]
            num_context_tokens, ends, line = len(ids), [], first
            while line < len(lines) and len(ids) + len(lines[line]) <= shape.max_tokens:
                ids += lines[line]
                ends.append(len(ids) - 1)
                line += 1
            yield Window(np.array(ids, np.int32), np.array(ends, np.int32), num_context_tokens, 0, first)
            first = line

    def _context(self, evidence: Evidence, segment: SegmentEvidence) -> list[int]:
        shape = self._shape
        said = [one for one in evidence.said if one.position < segment.position]
        users = [one.prose for one in said if one.role == "user" and one.prose]
        texts = [
            _clipped(f"Task: {users[0]}\n", shape.task) if users else "",
            _clipped(f"User: {users[-1]}\n", shape.user) if len(users) > 1 else "",
            _clipped(f"Result: {_described(segment)}", shape.call),
            *_newest(said, shape.history),
        ]
        task, user, call, *history = self._tokenizer.encode(texts)
        latest: list[int] = []
        for ids in reversed(history):
            room = shape.history - len(latest)
            latest = [*ids[: min(room, shape.history // 2)], *latest]
            if len(latest) >= shape.history:
                break
        return [
            *shape.begin,
            *task[: shape.task],
            *user[: shape.user],
            *latest,
            *call[: shape.call],
            *shape.end_of_context,
        ]


def _above(lines: Sequence[Sequence[int]], first: int, max_tokens: int) -> list[int]:
    """The whole lines above the first that fit."""
    ids: list[int] = []
    for line in reversed(lines[:first]):
        if len(ids) + len(line) > max_tokens:
            break
        ids = [*line, *ids]
    return ids


def _clipped(text: str, max_tokens: int) -> str:
    return text[: _MAX_CHARS_PER_TOKEN * max_tokens]


def _newest(said: Sequence[Said], max_tokens: int) -> list[str]:
    """What the agent wrote last, oldest first: not much more than fits."""
    texts: list[str] = []
    num_chars = 0
    for one in reversed(said):
        if num_chars >= _MAX_CHARS_PER_TOKEN * max_tokens:
            break
        if one.role == "assistant":
            text = "\n".join([one.prose, *(f"> {call}" for call in one.calls)])
            texts.append(f"{_clipped(text, max_tokens // 2)}\n")
            num_chars += len(texts[-1])
    return texts[::-1]


def _described(segment: SegmentEvidence) -> str:
    """What a result is of. Tools are not named: each agent has its own names for the same."""
    provenance = segment.provenance
    of = provenance.command or provenance.path or ""
    return f"{provenance.kind.value} {of}".strip()
