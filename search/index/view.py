"""A consistent picture of an indexed tree, which questions are put to; a refresh makes a new one.

A view is layers of files: a large one that was built at once, and a small one of files that changed since. It answers
look-ups by term over all layers as one numbering of files and chunks, and leaves out files that are gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sluice.compressor.syntax import Definition
from sluice.search.index.generation import Generation
from sluice.search.index.rules import is_documentation, is_example, is_test
from sluice.search.index.segment import Segment
from sluice.search.index.tokenizer import raw_tokens, terms_of


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
    """Files that were indexed together.

    Args:
        files: path, the segment's key, and the segment, which is not kept.
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
            if stem in _ENTRY_STEMS:  # `json/mod.rs` is about json
                stems |= _path_terms(directory.rsplit("/", 1)[-1])
            self.stems.append(frozenset(stems))
            for term in stems:
                self.stem_files.setdefault(term, []).append(number)


TYPE_KINDS = frozenset(
    {"class", "struct", "interface", "trait", "module", "protocol", "object", "impl", "enum", "type", "namespace"}
)
_ENTRY_STEMS = frozenset({"mod", "index", "__init__", "lib", "main", "init"})


_MAX_NESTING = 6
_TEST_NAME = re.compile(r"^(tests?$|test_)|Tests?$|TestCase$|_tests?$")


class Place(NamedTuple):
    """What a chunk is part of."""

    name: str
    """Of the definition, in lower case and without what qualifies it."""
    is_type: bool
    nesting: int
    """Definitions around it, 6 at most."""
    is_start: bool
    """Whether the definition begins in the chunk."""
    in_tests: bool
    """Whether it, or one around it, is called like a test."""


class View:
    """Layers as one tree.

    Args:
        layers: each with a bool per file that tells whether it still stands.

    Attributes:
        files: of all layers, gone ones included, so that positions are stable.
        file_of_chunk, starts, ends, lengths, owners: one entry per chunk, as in `Generation`.
        alive: bool per chunk.
    """

    def __init__(self, layers: Sequence[tuple[Layer, npt.NDArray[np.bool_]]]) -> None:
        self._layers = [layer for layer, _ in layers]
        self._names: dict[int, dict[str, tuple[bool, bool]]] = {}
        self._places: dict[int, Place] = {}
        generations = [layer.generation for layer in self._layers]
        self.files = tuple(entry for layer in self._layers for entry in layer.entries)
        self.alive_files = np.concatenate([alive for _, alive in layers]) if layers else np.zeros(0, np.bool_)
        self._file_bases = np.cumsum([0] + [len(layer.entries) for layer in self._layers]).tolist()
        self._chunk_bases = np.cumsum([0] + [generation.num_chunks for generation in generations]).tolist()
        self.file_of_chunk = _concatenate(
            [g.file_of_chunk.astype(np.int64) + b for g, b in zip(generations, self._file_bases, strict=False)]
        )
        self.starts = _concatenate([g.starts.astype(np.int64) for g in generations])
        self.ends = _concatenate([g.ends.astype(np.int64) for g in generations])
        self.lengths = _concatenate([g.lengths.astype(np.int64) for g in generations])
        self.owners = _concatenate([g.owners.astype(np.int64) for g in generations])
        self.first_chunk = _concatenate(
            [g.first_chunk[:-1].astype(np.int64) + b for g, b in zip(generations, self._chunk_bases, strict=False)]
        )
        self.alive = self.alive_files[self.file_of_chunk]
        self._all_alive = bool(self.alive.all())
        self.num_chunks = int(self.alive.sum())
        self.num_files = int(self.alive_files.sum())

    @cached_property
    def relative_lengths(self) -> npt.NDArray[np.float64]:
        """Terms per chunk, the average being 1."""
        return self.lengths / max(float(self.lengths.mean()), 1.0)

    @cached_property
    def relative_file_lengths(self) -> npt.NDArray[np.float64]:
        """Terms per file, the average being 1."""
        lengths = np.bincount(self.file_of_chunk, self.lengths, len(self.files)).astype(np.float64)
        return lengths / max(float(lengths.mean()), 1.0)

    @cached_property
    def chunks_per_file(self) -> npt.NDArray[np.int64]:
        """Chunks per file."""
        return np.bincount(self.file_of_chunk, minlength=len(self.files))

    @cached_property
    def stem_sizes(self) -> npt.NDArray[np.int64]:
        """Per file: how many terms its name has, 1 at least."""
        return np.array([max(1, len(stem)) for stem in self.stems], np.int64)

    @cached_property
    def stems(self) -> list[frozenset[str]]:
        """Per file: the terms of its name, or of its directory's where it stands for that."""
        return [stem for layer in self._layers for stem in layer.stems]

    @cached_property
    def is_test(self) -> npt.NDArray[np.bool_]:
        """Per file: its path names tests."""
        return np.array([is_test(entry.path) for entry in self.files], np.bool_)

    @cached_property
    def is_aside(self) -> npt.NDArray[np.bool_]:
        """Per file: its path names examples or benchmarks."""
        return np.array([is_example(entry.path) for entry in self.files], np.bool_)

    @cached_property
    def is_prose(self) -> npt.NDArray[np.bool_]:
        """Per file: it is documentation."""
        return np.array([is_documentation(entry.path) for entry in self.files], np.bool_)

    @cached_property
    def is_code(self) -> npt.NDArray[np.bool_]:
        """Per file: a grammar has read it, and it is no prose."""
        return np.array([entry.language not in ("", "markdown") for entry in self.files], np.bool_)

    @cached_property
    def is_entry(self) -> npt.NDArray[np.bool_]:
        """Per file: it is named as what stands for its directory (`__init__`, `mod`, `index`)."""
        return np.array([stem_of(entry.path)[1] in _ENTRY_STEMS for entry in self.files], np.bool_)

    @cached_property
    def num_lines(self) -> npt.NDArray[np.int64]:
        """Per file."""
        return np.array([entry.num_lines for entry in self.files], np.int64)

    @cached_property
    def depths(self) -> npt.NDArray[np.int64]:
        """Per file: directories above it."""
        return np.array([entry.path.count("/") for entry in self.files], np.int64)

    @cached_property
    def owner_runs(self) -> npt.NDArray[np.int64]:
        """First chunks of runs of one definition in one file; outside of any, each chunk is a run."""
        begins = np.ones(len(self.owners), np.bool_)
        same = (self.owners[1:] == self.owners[:-1]) & (self.file_of_chunk[1:] == self.file_of_chunk[:-1])
        begins[1:] = ~same | (self.owners[1:] < 0)
        return np.flatnonzero(begins)

    @cached_property
    def owner_run_of_chunk(self) -> npt.NDArray[np.int64]:
        """Per chunk: the position of its run in `owner_runs`."""
        lengths = np.diff(self.owner_runs, append=len(self.owners))
        return np.repeat(np.arange(len(self.owner_runs)), lengths)

    def place_of(self, chunk: int) -> Place | None:
        """The definition that a chunk belongs to; None outside of any."""
        index = int(self.owners[chunk])
        if index < 0:
            return None
        place = self._places.get(chunk)
        if place is None:
            definitions = self.files[self.file_of_chunk[chunk]].definitions
            owner = definitions[index]
            nesting, parent = 0, owner.parent
            in_tests = owner.kind == "test" or _is_test_name(owner.name)
            while parent >= 0 and nesting < _MAX_NESTING:
                in_tests = in_tests or _is_test_name(definitions[parent].name)
                nesting, parent = nesting + 1, definitions[parent].parent
            is_start = int(self.starts[chunk]) <= owner.start <= int(self.ends[chunk])
            name = last_part(owner.name).lower()
            place = self._places[chunk] = Place(name, owner.kind in TYPE_KINDS, nesting, is_start, in_tests)
        return place

    def body(self, term: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Standing chunks that hold the term, ascending, and how often."""
        chunks: list[npt.NDArray[np.int64]] = []
        counts: list[npt.NDArray[np.float64]] = []
        for layer, base in zip(self._layers, self._chunk_bases, strict=False):
            found, times = layer.generation.body(term)
            if len(found):
                chunks.append(found.astype(np.int64) + base)
                counts.append(times.astype(np.float64))
        all_chunks = _concatenate(chunks)
        all_counts = np.concatenate(counts) if counts else np.zeros(0)
        if self._all_alive:
            return all_chunks, all_counts
        standing = self.alive[all_chunks]
        return all_chunks[standing], all_counts[standing]

    def title(self, term: str) -> npt.NDArray[np.int64]:
        """Standing chunks in or around which a definition's name holds the term, ascending."""
        found = _concatenate(
            [
                layer.generation.title(term).astype(np.int64) + base
                for layer, base in zip(self._layers, self._chunk_bases, strict=False)
            ]
        )
        return found if self._all_alive else found[self.alive[found]]

    def in_path(self, term: str) -> list[int]:
        """Files, standing or not, whose path holds the term."""
        return self._by_path("path_files", term)

    def in_stem(self, term: str) -> list[int]:
        """Files, standing or not, whose name (without extension) holds the term."""
        return self._by_path("stem_files", term)

    def names_in(self, file: int) -> dict[str, tuple[bool, bool]]:
        """Names that the file defines, in lower case → whether it is a type, and whether it stands outermost."""
        names = self._names.get(file)
        if names is None:
            names = {}
            for definition in self.files[file].definitions:
                if definition.kind == "impl":  # says what is implemented, not what is defined
                    continue
                name = last_part(definition.name).lower()
                is_type, is_outer = names.get(name, (False, False))
                names[name] = (is_type or definition.kind in TYPE_KINDS, is_outer or definition.parent < 0)
            self._names[file] = names
        return names

    def _by_path(self, table: str, term: str) -> list[int]:
        found: list[int] = []
        for layer, base in zip(self._layers, self._file_bases, strict=False):
            found.extend(number + base for number in getattr(layer, table).get(term, ()))
        return found


@lru_cache(maxsize=65_536)
def _is_test_name(name: str) -> bool:
    return _TEST_NAME.search(name) is not None


@lru_cache(maxsize=65_536)
def last_part(name: str) -> str:
    """`Foo` of `a::b.Foo<T>`: the name itself."""
    return re.split(r"[<(\[ ]", name)[0].replace("::", ".").replace("#", ".").rsplit(".", 1)[-1].strip()


def single_layer_view(files: Sequence[tuple[str, Segment]]) -> View:
    """A view of files given with their segments; for trees that are not on disk."""
    return View([(Layer((path, b"", segment) for path, segment in files), np.ones(len(files), np.bool_))])


def stem_of(path: str) -> tuple[str, str]:
    """Directory, and name without extensions."""
    directory, _, name = path.rpartition("/")
    return directory, name.split(".", 1)[0] or name


def _path_terms(path: str) -> set[str]:
    return {term for token in raw_tokens(path.replace("/", " ").replace(".", " ")) for term in terms_of(token)}


def _concatenate(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
