"""Windows of many conversations with what was needed of their lines, as flat arrays, and the file that holds them.

Knows numpy alone, so that a machine that trains needs no reader of conversations.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sluice.compressor.scoring.neural.types import Window
from sluice.compressor.scoring.neural.windows import WindowShape
from sluice.eval.scorer.whole_file import whole_file

_IS_LINE_FACT, _HAS_WORD_FACT, _IS_QUOTED = 1, 2, 4
"""Bits of a line."""
_CHUNK_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Group:
    """Which conversation windows are of."""

    id: str
    agent: str
    repository: str


@dataclass(frozen=True, slots=True)
class Labels:
    """Of the lines of one window: see `data.Examples`."""

    num_words: npt.NDArray[np.float32]
    num_lines: npt.NDArray[np.float32]
    is_line_fact: npt.NDArray[np.bool_]
    has_word_fact: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Windows in the order of the conversations."""

    shape: WindowShape
    base: str
    groups: tuple[Group, ...]
    token_ids: npt.NDArray[np.uint16]
    token_starts: npt.NDArray[np.int64]
    """(windows + 1,): where each window's tokens begin."""
    line_ends: npt.NDArray[np.uint16]
    line_starts: npt.NDArray[np.int64]
    """(windows + 1,): where each window's lines begin in the columns of lines."""
    windows: npt.NDArray[np.int32]
    """(windows, 5): group, message, text of the message, first line, tokens of the context."""
    num_words: npt.NDArray[np.uint8]
    """By line: names on it that were needed."""
    flags: npt.NDArray[np.uint8]
    """By line: whether it is a fact, has one, was quoted."""

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def num_tokens(self) -> npt.NDArray[np.int64]:
        """Of each window."""
        return np.diff(self.token_starts)

    @property
    def is_line_fact(self) -> npt.NDArray[np.bool_]:
        """By line."""
        return (self.flags & _IS_LINE_FACT) > 0

    @property
    def has_word_fact(self) -> npt.NDArray[np.bool_]:
        """By line."""
        return (self.flags & _HAS_WORD_FACT) > 0

    @property
    def is_quoted(self) -> npt.NDArray[np.bool_]:
        """By line."""
        return (self.flags & _IS_QUOTED) > 0

    def window(self, number: int) -> Window:
        """One window, as a model reads it."""
        tokens = slice(self.token_starts[number], self.token_starts[number + 1])
        lines = slice(self.line_starts[number], self.line_starts[number + 1])
        _, _, _, first_line, num_context_tokens = self.windows[number].tolist()
        return Window(
            self.token_ids[tokens].astype(np.int32),
            self.line_ends[lines].astype(np.int32),
            num_context_tokens,
            0,
            first_line,
        )


class CorpusBuilder:
    """Grows a corpus window by window."""

    def __init__(self, shape: WindowShape, base: str) -> None:
        self._shape, self._base = shape, base
        self._groups: list[Group] = []
        self._tokens: list[npt.NDArray[np.uint16]] = []
        self._ends: list[npt.NDArray[np.uint16]] = []
        self._windows: list[tuple[int, ...]] = []
        self._words: list[npt.NDArray[np.uint8]] = []
        self._flags: list[npt.NDArray[np.uint8]] = []

    def begin(self, group: Group) -> None:
        """The windows that follow are of this conversation."""
        self._groups.append(group)

    def add(self, window: Window, message: int, text: int, labels: Labels) -> None:
        """Add a window of a segment, which is named by its message and which of that message's texts it is."""
        self._tokens.append(window.token_ids.astype(np.uint16))
        self._ends.append(window.line_ends.astype(np.uint16))
        self._windows.append((len(self._groups) - 1, message, text, window.first_line, window.num_context_tokens))
        self._words.append(np.minimum(labels.num_words, 255).astype(np.uint8))
        flags = labels.is_line_fact * _IS_LINE_FACT + labels.has_word_fact * _HAS_WORD_FACT
        self._flags.append((flags + (labels.num_lines > 0) * _IS_QUOTED).astype(np.uint8))

    def build(self) -> Corpus:
        """All that was added."""
        return Corpus(
            self._shape,
            self._base,
            tuple(self._groups),
            _joined(self._tokens, np.uint16),
            _starts(self._tokens),
            _joined(self._ends, np.uint16),
            _starts(self._ends),
            np.array(self._windows, np.int32).reshape(-1, 5),
            _joined(self._words, np.uint8),
            _joined(self._flags, np.uint8),
        )


def concatenated(parts: Sequence[Corpus]) -> Corpus:
    """Several corpora of one base and shape as one."""
    windows, num_groups = [], 0
    for part in parts:
        windows.append(part.windows + np.array([num_groups, 0, 0, 0, 0], np.int32))
        num_groups += len(part.groups)
    return Corpus(
        parts[0].shape,
        parts[0].base,
        tuple(group for part in parts for group in part.groups),
        np.concatenate([part.token_ids for part in parts]),
        np.concatenate([[0], np.cumsum(np.concatenate([part.num_tokens for part in parts]))]),
        np.concatenate([part.line_ends for part in parts]),
        np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.line_starts) for part in parts]))]),
        np.concatenate(windows),
        np.concatenate([part.num_words for part in parts]),
        np.concatenate([part.flags for part in parts]),
    )


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write a corpus as compressed arrays (`.npz` in xz: contexts repeat from window to window)."""
    note = {
        "shape": corpus.shape.to_json(),
        "base": corpus.base,
        "groups": [[group.id, group.agent, group.repository] for group in corpus.groups],
    }
    stream = io.BytesIO()
    arrays: dict[str, Any] = {
        "token_ids": corpus.token_ids,
        "num_tokens": corpus.num_tokens.astype(np.int32),
        # Distances between ends compress better than ends.
        "line_ends": np.diff(corpus.line_ends, prepend=np.uint16(0)),
        "num_lines": np.diff(corpus.line_starts).astype(np.int32),
        "windows": corpus.windows,
        "num_words": corpus.num_words,
        "flags": corpus.flags,
    }
    np.savez(stream, allow_pickle=False, note=np.array(json.dumps(note)), **arrays)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 2**26}]
    with whole_file(path) as file, lzma.open(file, "wb", filters=filters) as packed:
        packed.write(stream.getbuffer())


def read_corpora(paths: Iterable[Path]) -> Corpus:
    """The corpora of some files as one."""
    return concatenated([read_corpus(path) for path in paths])


def read_corpus(path: Path) -> Corpus:
    """Read what `write_corpus` wrote."""
    stream = io.BytesIO()
    with lzma.open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            stream.write(chunk)
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as arrays:
        note = json.loads(str(arrays["note"]))
        return Corpus(
            WindowShape.from_json(note["shape"]),
            note["base"],
            tuple(Group(*group) for group in note["groups"]),
            arrays["token_ids"],
            np.concatenate([[0], np.cumsum(arrays["num_tokens"], dtype=np.int64)]),
            np.cumsum(arrays["line_ends"], dtype=np.uint16),
            np.concatenate([[0], np.cumsum(arrays["num_lines"], dtype=np.int64)]),
            arrays["windows"],
            arrays["num_words"],
            arrays["flags"],
        )


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _starts(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)])
