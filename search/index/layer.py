"""Files that were indexed together: what is kept of each, their postings, and the terms of their paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice.compressor.syntax import Definition
from sluice.search.index.generation import Generation
from sluice.search.index.segment import Segment
from sluice.search.index.tokenizer import raw_tokens, terms_of

ENTRY_STEMS = frozenset({"mod", "index", "__init__", "lib", "main", "init"})
"""Names of files that stand for their directory: `json/mod.rs` is about json."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What is kept in memory of one file besides its postings."""

    path: str
    key: bytes
    """Of its segment: depends on content and language."""
    language: str
    num_lines: int
    definitions: tuple[Definition, ...]
    levels: npt.NDArray[np.uint8]
    """As in `Segment`."""


class Layer:
    """Files that were indexed together. Never changed.

    Args:
        files: path, the segment's key, and the segment, which is not kept.

    Attributes:
        entries: the files, in their order.
        generation: their postings.
        stems: by file, the terms of its name (of its directory's too, where it stands for that).
        path_files, stem_files: by term, the files whose path, or name, holds it.
    """

    def __init__(self, files: Iterable[tuple[str, bytes, Segment]]) -> None:
        entries: list[FileEntry] = []

        def segments() -> Iterator[Segment]:
            for path, key, segment in files:
                entries.append(
                    FileEntry(path, key, segment.language, segment.num_lines, segment.definitions, segment.levels)
                )
                yield segment

        self.generation = Generation(segments())
        self.entries = tuple(entries)
        self.path_files: dict[str, list[int]] = {}
        self.stem_files: dict[str, list[int]] = {}
        self.stems: list[frozenset[str]] = []
        for number, entry in enumerate(self.entries):
            directory, stem = stem_of(entry.path)
            for term in _path_terms(entry.path):
                self.path_files.setdefault(term, []).append(number)
            stems = _path_terms(stem)
            if stem in ENTRY_STEMS:
                stems |= _path_terms(directory.rsplit("/", 1)[-1])
            self.stems.append(frozenset(stems))
            for term in stems:
                self.stem_files.setdefault(term, []).append(number)


def stem_of(path: str) -> tuple[str, str]:
    """Directory, and name without extensions."""
    directory, _, name = path.rpartition("/")
    return directory, name.split(".", 1)[0] or name


def _path_terms(path: str) -> set[str]:
    return {term for token in raw_tokens(path.replace("/", " ").replace(".", " ")) for term in terms_of(token)}
