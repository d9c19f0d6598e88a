"""The facts that an agent needs at a turn: the words and lines it writes because a tool had shown them.

A *word* of a text is a match of `WORD`, stripped; a text *shows* or *contains* a word if it is among its words (that
`foo.py` stands inside `src/foo.py` does not count). Whether a fact is still *kept* is asked of the bytes forwarded,
as a substring (`metrics.py`). Each message is read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sluice.eval.data import Trace, Turn

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./\-]{5,}|\d{3,}")
TELLING = re.compile(r"[_./0-9]|[a-z][A-Z]")
"""What tells a name, a path or a number from prose."""
GUTTER = re.compile(r"^\s*\d+\s*(→|\||:|\t)\s?")
"""The line number that a tool puts before a line of a file."""
MIN_LINE_CHARS = 16
NEIGHBOURS = 2
"""Lines on either side that make a line a place."""

Spot = tuple[int, int]
"""Where a fact was shown: index of the message, number of the line (from 0)."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact that is needed at a turn."""

    text: bytes
    """UTF-8, as it must stand in a forwarded message."""
    spots: tuple[Spot, ...]
    """Every line that had shown it, in order."""
    places: tuple[bytes, ...]
    """For a word: the first, middle and last place that showed it, verbatim. For a line: none."""


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What the agent's real message at one turn took from tool output."""

    words: tuple[Fact, ...]
    lines: tuple[Fact, ...]


def words_of(text: str) -> set[str]:
    """The words of a text: names, paths and numbers, not prose."""
    stripped = (match.strip("./-") for match in WORD.findall(text))
    return {word for word in stripped if TELLING.search(word)}


def line_of(raw: str) -> str | None:
    """A line without its gutter, stripped; None if it is too short to be a fact."""
    line = GUTTER.sub("", raw, count=1).strip()
    return line if len(line) >= MIN_LINE_CHARS else None


def lines_of(text: str) -> set[str]:
    """The lines of a text that can be facts."""
    return {line for raw in text.split("\n") if (line := line_of(raw)) is not None}


def needed_facts(trace: Trace, turns: Iterable[Turn]) -> list[TurnFacts]:
    """The facts needed at each turn, in order.

    What lies before a compaction has been shown to nobody: the memory of what was shown and said starts anew there.
    """
    found: list[TurnFacts] = []
    memory = _Memory(trace)
    done: tuple[int, ...] = ()
    for turn in turns:
        if turn.history[: len(done)] != done:
            memory, done = _Memory(trace), ()
        for index in turn.history[len(done) :]:
            memory.read(index)
        done = turn.history
        found.append(memory.needed(turn.answer))
    return found


class _Memory:
    """What was shown, said and written in the history of one request."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._shown_words: dict[str, list[int]] = {}
        self._shown_lines: dict[str, list[int]] = {}
        self._said_words: set[str] = set()
        self._written_lines: set[str] = set()

    def read(self, index: int) -> None:
        message = self._trace.messages[index]
        text = message.shown.decode("utf-8", "surrogatepass")
        if index in self._trace.results:
            for word in words_of(text):
                self._shown_words.setdefault(word, []).append(index)
            for line in lines_of(text):
                self._shown_lines.setdefault(line, []).append(index)
            return
        self._said_words |= words_of(text)
        if message.role == "assistant":
            self._written_lines |= lines_of(text)

    def needed(self, answer: int) -> TurnFacts:
        text = self._trace.messages[answer].shown.decode("utf-8", "surrogatepass")
        words = sorted(word for word in words_of(text) - self._said_words if word in self._shown_words)
        lines = sorted(line for line in lines_of(text) - self._written_lines if line in self._shown_lines)
        return TurnFacts(words=tuple(map(self._word, words)), lines=tuple(map(self._line, lines)))

    def _word(self, word: str) -> Fact:
        spots = tuple(
            (index, number)
            for index in self._shown_words[word]
            for number, line in enumerate(_split(self._trace.messages[index].shown))
            if word in line and word in words_of(line)
        )
        chosen = dict.fromkeys((spots[0], spots[len(spots) // 2], spots[-1]))
        return Fact(text=_utf8(word), spots=spots, places=tuple(self._place(*spot) for spot in chosen))

    def _line(self, line: str) -> Fact:
        spots = tuple(
            (index, number)
            for index in self._shown_lines[line]
            for number, raw in enumerate(_split(self._trace.messages[index].shown))
            if line in raw and line_of(raw) == line
        )
        return Fact(text=_utf8(line), spots=spots, places=())

    def _place(self, index: int, number: int) -> bytes:
        lines = _split(self._trace.messages[index].shown)
        return _utf8("\n".join(lines[max(0, number - NEIGHBOURS) : number + NEIGHBOURS + 1]))


@lru_cache(maxsize=256)
def _split(shown: bytes) -> list[str]:
    return shown.decode("utf-8", "surrogatepass").split("\n")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
