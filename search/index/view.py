"""A consistent picture of an indexed tree, which questions are put to; a refresh makes a new one.

A view is layers of files: a large one that was built at once, and a small one of files that changed since. It answers
look-ups by term over all layers as one numbering of files and chunks, and leaves out files that are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from sluice.search.index.layer import ENTRY_STEMS, FileEntry, Layer, stem_of
from sluice.search.index.names import Place, defined_names, place_in
from sluice.search.index.rules import is_documentation, is_example, is_test
from sluice.search.index.segment import Segment


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
        self._names: dict[int, dict[str, tuple[bool, bool]]] = {}
        self._places: dict[int, Place] = {}
        self.files = tuple(entry for layer, _ in layers for entry in layer.entries)
        self.alive_files = np.concatenate([alive for _, alive in layers]) if layers else np.zeros(0, np.bool_)
        generations = [layer.generation for layer, _ in layers]
        first_files = accumulate((len(layer.entries) for layer, _ in layers), initial=0)
        first_chunks = accumulate((generation.num_chunks for generation in generations), initial=0)
        self._layers = [
            (layer, file, chunk) for (layer, _), file, chunk in zip(layers, first_files, first_chunks, strict=False)
        ]
        """With the numbers of each one's first file and first chunk."""
        self.file_of_chunk = _concatenate(
            [layer.generation.file_of_chunk.astype(np.int64) + file for layer, file, _ in self._layers]
        )
        self.starts = _concatenate([g.starts.astype(np.int64) for g in generations])
        self.ends = _concatenate([g.ends.astype(np.int64) for g in generations])
        self.lengths = _concatenate([g.lengths.astype(np.int64) for g in generations])
        self.owners = _concatenate([g.owners.astype(np.int64) for g in generations])
        self.first_chunk = _concatenate(
            [layer.generation.first_chunk[:-1].astype(np.int64) + chunk for layer, _, chunk in self._layers]
        )
        self.alive = self.alive_files[self.file_of_chunk]
        self._all_alive = bool(self.alive.all())
        self.num_chunks = int(self.alive.sum())
        self.num_files = int(self.alive_files.sum())

    @cached_property
    def by_path(self) -> dict[str, FileEntry]:
        """Standing files."""
        return {entry.path: entry for entry, stands in zip(self.files, self.alive_files, strict=True) if stands}

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
        return [stem for layer, _, _ in self._layers for stem in layer.stems]

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
        return np.array([stem_of(entry.path)[1] in ENTRY_STEMS for entry in self.files], np.bool_)

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
            start, end = int(self.starts[chunk]), int(self.ends[chunk])
            place = self._places[chunk] = place_in(definitions, index, start, end)
        return place

    def body(self, term: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Standing chunks that hold the term, ascending, and how often."""
        chunks: list[npt.NDArray[np.int64]] = []
        counts: list[npt.NDArray[np.float64]] = []
        for layer, _, first in self._layers:
            found, times = layer.generation.body(term)
            if len(found):
                chunks.append(found.astype(np.int64) + first)
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
            [layer.generation.title(term).astype(np.int64) + first for layer, _, first in self._layers]
        )
        return found if self._all_alive else found[self.alive[found]]

    def in_path(self, term: str) -> list[int]:
        """Files, standing or not, whose path holds the term."""
        return [file + first for layer, first, _ in self._layers for file in layer.path_files.get(term, ())]

    def in_stem(self, term: str) -> list[int]:
        """Files, standing or not, whose name (without extension) holds the term."""
        return [file + first for layer, first, _ in self._layers for file in layer.stem_files.get(term, ())]

    def names_in(self, file: int) -> dict[str, tuple[bool, bool]]:
        """Names that the file defines; see `defined_names`."""
        names = self._names.get(file)
        if names is None:
            names = self._names[file] = defined_names(self.files[file].definitions)
        return names


def single_layer_view(files: Sequence[tuple[str, Segment]]) -> View:
    """A view of files given with their segments; for trees that are not on disk."""
    return View([(Layer((path, b"", segment) for path, segment in files), np.ones(len(files), np.bool_))])


def _concatenate(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
