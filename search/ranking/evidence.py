"""How well every chunk and every file of a view answers a question, as arrays: the lexical evidence.

Two levels: chunks by BM25 over body and titles (Robertson & Zaragoza 2009), files by BM25F over body, definitions and
path. No choice is made here; `files.py` and `chunks.py` turn evidence into features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sluice.search.index.view import View
from sluice.search.ranking.candidates import F64
from sluice.search.ranking.question import Question

CHUNK_K1 = 1.2
CHUNK_B = 0.6
TITLE_WEIGHT = 1.6
"""Occurrences in the body that one in a title is worth."""
FILE_K1 = 1.2
FILE_B = 0.5
FILE_TITLE_WEIGHT = 2.0
FILE_PATH_WEIGHT = 6.0
FILE_STEM_WEIGHT = 8.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """One array per measure, over the chunks first, then over the files.

    All but the BM25 scores are shares of the question's weight (0 to 1), in which rare terms count for more.
    """

    bm25: F64
    head_bm25: F64
    """The first sentence's terms alone."""
    title: F64
    """Terms that name definitions in or around the chunk."""
    coverage: F64
    """Terms that the chunk holds."""
    named: F64
    """Identifiers, as whole words, that the chunk holds."""
    file_bm25: F64
    file_coverage: F64
    file_title: F64
    file_path: F64
    file_stem: F64
    file_named: F64
    stem_share: F64
    """How much of the file's name the question accounts for, 0 to 1."""
    rarity: dict[str, float]
    """Share of the question's weight that each of its terms has, among chunks."""


def gather(view: View, question: Question) -> Evidence:
    """Look the question's terms up and add them up."""
    num_chunks, num_files = len(view.starts), len(view.files)
    chunks = {name: np.zeros(num_chunks) for name in ("bm25", "head_bm25", "title", "coverage", "named")}
    files = {
        name: np.zeros(num_files)
        for name in ("file_bm25", "file_coverage", "file_title", "file_path", "file_stem", "file_named", "stem_share")
    }
    named = {name.lower().strip("_") for name in question.identifiers}
    total = total_file = 0.0
    occurrences = np.zeros(num_chunks)  # of one term; emptied after each, which is cheaper than a new one
    rarities: dict[str, float] = {}
    for term, weight in question.weights.items():
        found, counts = view.body(term)
        titled = view.title(term)
        in_path, in_stem = view.in_path(term), view.in_stem(term)
        if not len(found) and not len(titled) and not in_path:
            continue
        occurrences[found] = counts
        only_titled = titled[occurrences[titled] == 0.0]
        holders = np.concatenate([found, only_titled]) if len(only_titled) else found
        rarity = weight * _idf(len(holders), view.num_chunks)
        occurrences[titled] += TITLE_WEIGHT
        tf = occurrences[holders]
        occurrences[holders] = 0.0
        gain = rarity * tf / (tf + CHUNK_K1 * (1 - CHUNK_B + CHUNK_B * view.relative_lengths[holders]))
        chunks["bm25"][holders] += gain
        if term in question.head:
            chunks["head_bm25"][holders] += gain
        chunks["title"][titled] += rarity
        chunks["coverage"][holders] += rarity
        total += rarity
        rarities[term] = rarity
        if term in named:
            chunks["named"][found] += rarity
        by_file = np.bincount(view.file_of_chunk[found], counts, num_files).astype(np.float64)
        titles = np.minimum(np.bincount(view.file_of_chunk[titled], minlength=num_files), 5)
        by_file += FILE_TITLE_WEIGHT * titles
        by_file[in_path] += FILE_PATH_WEIGHT
        by_file[in_stem] += FILE_STEM_WEIGHT
        holding = np.flatnonzero(by_file)
        file_rarity = weight * _idf(len(holding), view.num_files)
        tf = by_file[holding]
        norm = FILE_K1 * (1 - FILE_B + FILE_B * view.relative_file_lengths[holding])
        files["file_bm25"][holding] += file_rarity * tf / (tf + norm)
        files["file_coverage"][holding] += file_rarity
        total_file += file_rarity
        files["file_title"][titles > 0] += file_rarity
        files["file_path"][in_path] += file_rarity
        files["file_stem"][in_stem] += file_rarity
        files["stem_share"][in_stem] += 1.0
        if term in named:
            files["file_named"][view.file_of_chunk[found]] += file_rarity
    for name in ("title", "coverage", "named"):
        chunks[name] /= max(total, 1e-9)
    for name in ("file_coverage", "file_title", "file_path", "file_stem", "file_named"):
        files[name] /= max(total_file, 1e-9)
    files["stem_share"] /= view.stem_sizes
    shares = {term: rarity / max(total, 1e-9) for term, rarity in rarities.items()}
    return Evidence(**chunks, **files, rarity=shares)


def _idf(num_holding: int, num_all: int) -> float:
    return float(np.log1p((num_all - num_holding + 0.5) / (num_holding + 0.5))) if num_holding <= num_all else 0.0
