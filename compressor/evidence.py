"""What a conversation tells about its tool results: which words and lines they show, and what became of them since.

Grown by one message at a time and kept in columns of integers, so that a turn costs its new messages and a scorer can
read the whole history at once. Knows no scorer, no plan and no store.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.compressor.files import FileHistory, name_of
from sluice.compressor.lines import Lines, split
from sluice.compressor.provenance import Kind, Provenance, Segment, decode_arguments, strings
from sluice.compressor.said import Said, clipped
from sluice.compressor.types import Message

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./\-]{5,}|\d{3,}")
"""What is taken for a word: names, paths, numbers and longer words of prose."""
TELLING = re.compile(r"[_./0-9]|[a-z][A-Z]")
"""What tells a name, a path or a number from prose."""
LINE_NUMBER = re.compile(r"^\s*\d+\s*(→|\||:|\t)\s?")
MIN_LINE_CHARS = 16
"""Shorter lines are no facts: too many others are equal to them."""

IS_TELLING = 1
IS_NUMBER = 2
IS_PATH = 4
"""Bits of `Evidence.word_flags`."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SegmentEvidence:
    """One tool result of the conversation. Equal only to itself."""

    position: int
    """Its message's place in the conversation, from 1."""
    index: int
    """Which of the message's texts it is."""
    provenance: Provenance
    lines: Lines
    num_chars: int
    start: int
    """Its first line's place in the line columns."""
    num_results_before: int

    @property
    def stop(self) -> int:
        """One past its last line's place in the line columns."""
        return self.start + len(self.lines)


class Evidence:
    """A conversation in columns. Positions count messages from 1; position 0 means never.

    Word columns are indexed by a word's id, line columns by a line's place among all lines of all results, key columns
    by the id of a line's text (less number and indentation; -1 in `line_key` for lines too short to be told apart).

    Args:
        files: when which file was read and changed; whoever adds a message here adds its calls there first.
    """

    def __init__(self, files: FileHistory) -> None:
        self.files = files
        self.num_messages = 0
        self.segments: list[SegmentEvidence] = []
        self.num_results_at = array("i", [0])
        """By position: tool results up to and including this message."""
        self.user_positions: list[int] = []
        """Messages that hold a person's words."""
        self.edit_positions: list[int] = []
        """Messages with a call that changes files."""
        self.said: list[Said] = []
        """What was said, but for tool results, in order and clipped: what a model reads beside the lines."""
        self.has_read_tool = False
        """Whether the agent has a tool for reading files, beside its shell."""
        self.first_task: frozenset[int] = frozenset()
        """Ids of the words of the first user message."""
        self.latest_task: frozenset[int] = frozenset()
        """Ids of the words of the newest user message."""

        self.word_flags = array("B")
        self.word_said = array("i")
        """Newest message, other than a tool result, that holds the word."""
        self.word_num_visible = array("i")
        """Lines of tool results that still show the word (twice on a line counts twice)."""
        self.word_name = array("i")
        """For paths: the id of the file's name; else -1."""
        self.name_said = array("i")
        """By name id: the newest message, other than a tool result, that names the file."""
        self.name_touched = array("i")
        """By name id: the newest message with a call that reads or changes the file."""

        self.line_key = array("i")
        self.line_visible = bytearray()
        self.line_words = array("i", [0])
        """Where each line's words begin in `shown_words`; one more entry than lines."""
        self.shown_words = array("i")
        """Word ids, line after line."""
        self.key_written = array("i")
        """Newest assistant message that holds the line."""
        self.key_num_visible = array("i")

        self._words: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._commands: dict[str, list[int]] = {}
        self._newest: dict[tuple[int, int], SegmentEvidence] = {}

    @property
    def num_results(self) -> int:
        """Tool results so far."""
        return self.num_results_at[-1]

    def add(self, message: Message, segments: Sequence[Segment], called: Sequence[Provenance]) -> None:
        """Take in the next message.

        Args:
            message: as the client sent it.
            segments: its tool results (`Origins.segments`).
            called: what its calls will show or change (`Origins.add`).
        """
        self.num_messages += 1
        position = self.num_messages
        results = {segment.index for segment in segments}
        prose = [text.text for index, text in enumerate(message.texts) if index not in results]
        self._say(message, prose, position)
        for segment in segments:
            self._show(segment, position)
        self.num_results_at.append(self.num_results + len(segments))
        for provenance in called:
            self._call(provenance, position)

    def segment_at(self, position: int, index: int) -> SegmentEvidence | None:
        """The tool result with this index in the message at this position."""
        return self._newest.get((position, index))

    def omit(self, segment: SegmentEvidence, start: int, stop: int) -> None:
        """Note that lines `start` to `stop` (exclusive) of a segment are no longer forwarded."""
        for line in range(segment.start + start, segment.start + stop):
            if not self.line_visible[line]:
                continue
            self.line_visible[line] = 0
            if self.line_key[line] >= 0:
                self.key_num_visible[self.line_key[line]] -= 1
            for word in self.shown_words[self.line_words[line] : self.line_words[line + 1]]:
                self.word_num_visible[word] -= 1

    def runs(self, command: str) -> list[int]:
        """Positions of the calls that ran this command, in order."""
        return self._commands.get(command, [])

    def last_named(self, path: str) -> int:
        """The newest message, other than a tool result, that names this file."""
        name = self._names.get(name_of(path))
        return 0 if name is None else self.name_said[name]

    def _say(self, message: Message, prose: Sequence[str], position: int) -> None:
        calls = [strings(decode_arguments(call)) for call in message.calls]
        arguments = [text for call in calls for text in call]
        if heard := clipped(message.role, position, prose, calls):
            self.said.append(heard)
        said: set[int] = set()
        for text in (*prose, *arguments):
            said.update(self._word_ids(text))
        for word in said:
            self.word_said[word] = position
            name = self.word_name[word]
            if name >= 0:
                self.name_said[name] = position
        if message.role == "assistant":
            for text in (*prose, *arguments):
                for raw in text.split("\n"):
                    key = self._key(raw)
                    if key >= 0:
                        self.key_written[key] = position
        elif message.role == "user" and prose:
            self.user_positions.append(position)
            self.latest_task = frozenset(said)
            if len(self.user_positions) == 1:
                self.first_task = self.latest_task

    def _show(self, segment: Segment, position: int) -> None:
        lines = split(segment.text)
        found = SegmentEvidence(
            position,
            segment.index,
            segment.provenance,
            lines,
            num_chars=len(segment.text),
            start=len(self.line_key),
            num_results_before=self.num_results,
        )
        for raw in lines.texts:
            key = self._key(raw)
            if key >= 0:
                self.key_num_visible[key] += 1
            self.line_key.append(key)
            words = self._word_ids(raw)
            for word in words:
                self.word_num_visible[word] += 1
            self.shown_words.extend(words)
            self.line_words.append(len(self.shown_words))
        self.line_visible.extend(b"\1" * len(lines))
        self.segments.append(found)
        self._newest[position, segment.index] = found

    def _call(self, provenance: Provenance, position: int) -> None:
        for path in provenance.edited_paths:
            self.name_touched[self._name_id(name_of(path))] = position
        if provenance.edited_paths:
            self.edit_positions.append(position)
        if provenance.kind is Kind.READ and provenance.path is not None:
            self.name_touched[self._name_id(name_of(provenance.path))] = position
            self.has_read_tool = self.has_read_tool or provenance.command is None
        if provenance.command is not None:
            self._commands.setdefault(provenance.command, []).append(position)

    def _word_ids(self, text: str) -> list[int]:
        words = self._words
        found = []
        for match in WORD.findall(text):
            word = words.get(match)
            if word is None:
                word = self._new_word(match)
            if word >= 0:
                found.append(word)
        return found

    def _new_word(self, match: str) -> int:
        stripped = match.strip("./-")
        if stripped != match:
            # The unstripped spelling leads to the same word, so that it is stripped only once.
            self._words[match] = self._words[stripped] if stripped in self._words else self._new_word(stripped)
            return self._words[match]
        if not stripped:
            self._words[match] = -1
            return -1
        is_path = "/" in stripped or "." in stripped
        flags = (
            (IS_TELLING if TELLING.search(stripped) else 0)
            | (IS_NUMBER if stripped.isdigit() else 0)
            | (IS_PATH if is_path else 0)
        )
        word = len(self.word_flags)
        self._words[match] = word
        self.word_flags.append(flags)
        self.word_said.append(0)
        self.word_num_visible.append(0)
        self.word_name.append(self._name_id(name_of(stripped)) if is_path else -1)
        return word

    def _name_id(self, name: str) -> int:
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = len(self.name_said)
            self.name_said.append(0)
            self.name_touched.append(0)
        return found

    def _key(self, raw: str) -> int:
        line = LINE_NUMBER.sub("", raw, count=1).strip()
        if len(line) < MIN_LINE_CHARS:
            return -1
        key = self._keys.get(line)
        if key is None:
            key = self._keys[line] = len(self.key_written)
            self.key_written.append(0)
            self.key_num_visible.append(0)
        return key
