"""The files worth a closer look, each with the features that the file ranker weighs.

The order of the columns is part of a trained ranker; one that was trained on other columns is refused.
"""

from __future__ import annotations

import numpy as np

from sluice.search.index.layer import stem_of
from sluice.search.index.view import View
from sluice.search.ranking.candidates import F64, I64, Candidates, best, best_chunks, matrix, ranks, relative, top
from sluice.search.ranking.evidence import Evidence
from sluice.search.ranking.question import Question

MAX_FILES = 60

FILE_FEATURES = (
    "bm25",
    "best_chunk",
    "top_chunks",
    "head",
    "coverage",
    "best_coverage",
    "title",
    "best_title",
    "path",
    "stem",
    "stem_share",
    "named",
    "defines_name",
    "defines_word",
    "is_named_so",
    "stem_alike",
    "opening",
    "asks_change",
    "asks_how",
    "hit_share",
    "bm25_rank",
    "chunk_rank",
    "quality",
    "is_test",
    "is_aside",
    "is_prose",
    "is_code",
    "is_entry",
    "log_lines",
    "depth",
    "num_terms",
    "is_symbol",
    "wants_tests",
)


def file_candidates(view: View, question: Question, evidence: Evidence) -> Candidates:
    """The files that any measure puts in front. `features`: float32[n, len(FILE_FEATURES)]."""
    num_files = len(view.files)
    owner = view.file_of_chunk
    best_chunk = best_chunks(view, evidence.bm25)
    bm25 = evidence.file_bm25 / top(evidence.file_bm25)
    chunk = best_chunk / top(best_chunk)
    hopeful = np.where(view.alive_files, bm25 + chunk + 0.5 * evidence.file_stem + 0.5 * evidence.file_title, 0.0)
    ids = best(hopeful, MAX_FILES)
    sums = _top_sums(view, evidence.bm25, ids)
    hits = np.bincount(owner, evidence.bm25 > 0, num_files)
    defines = np.array([_defined(view, int(file), question) for file in ids]).reshape(-1, 3)
    num_terms = len(question.weights)
    columns = {
        "bm25": bm25[ids],
        "best_chunk": chunk[ids],
        "top_chunks": sums / top(sums),
        "head": relative(best_chunks(view, evidence.head_bm25))[ids],
        "coverage": evidence.file_coverage[ids],
        "best_coverage": best_chunks(view, evidence.coverage)[ids],
        "title": evidence.file_title[ids],
        "best_title": best_chunks(view, evidence.title)[ids],
        "path": evidence.file_path[ids],
        "stem": evidence.file_stem[ids],
        "stem_share": evidence.stem_share[ids],
        "named": evidence.file_named[ids],
        "defines_name": defines[:, 0],
        "defines_word": defines[:, 1],
        "is_named_so": defines[:, 2],
        "stem_alike": np.array([_alike(view.stems[file], question) for file in ids.tolist()]),
        "opening": evidence.coverage[view.first_chunk[ids]],
        "asks_change": np.full(len(ids), question.asks_change),
        "asks_how": np.full(len(ids), question.asks_how),
        "hit_share": hits[ids] / np.maximum(view.chunks_per_file[ids], 1),
        "bm25_rank": ranks(bm25[ids]),
        "chunk_rank": ranks(chunk[ids]),
        "quality": best_chunk[ids] / max(1.0, sum(question.weights.values())),
        "is_test": view.is_test[ids],
        "is_aside": view.is_aside[ids],
        "is_prose": view.is_prose[ids],
        "is_code": view.is_code[ids],
        "is_entry": view.is_entry[ids],
        "log_lines": np.log1p(view.num_lines[ids]),
        "depth": view.depths[ids],
        "num_terms": np.full(len(ids), num_terms),
        "is_symbol": np.full(len(ids), question.is_symbol),
        "wants_tests": np.full(len(ids), question.wants_tests),
    }
    return Candidates(ids, matrix(columns, FILE_FEATURES))


def _defined(view: View, file: int, question: Question) -> tuple[float, float, float]:
    """How far the file's definitions, and the file itself, are called what the question names.

    Returns:
        Share of the question's identifiers that are defined here (in full for a type), number of the question's words
        that definitions are called, and 2 or 1 if the file is called like an identifier or a word.
    """
    wanted = {name.lower() for name in question.identifiers}
    words = {word.lower() for word in question.words}
    names = view.names_in(file)
    named = sum(1.0 if names[name][0] else 0.5 for name in wanted if name in names)
    worded = sum(any(names[word]) for word in words if word in names)
    entry = view.files[file]
    directory, stem = stem_of(entry.path)
    called = (directory.rsplit("/", 1)[-1] if view.is_entry[file] else stem).replace("_", "").replace("-", "").lower()
    is_named_so = 2.0 if any(called == name.replace("_", "") for name in wanted) else float(called in words)
    return named / max(1, len(wanted)), float(min(worded, 4)), is_named_so


def _alike(stem_terms: frozenset[str], question: Question) -> float:
    """Share of the file name's terms that begin like a term of the question: `resolver` and `resolution`."""
    hits = 0
    for term in stem_terms:
        if term not in question.weights and term[:4] not in question.openings:
            continue
        for other in question.weights:
            enough = max(4, max(len(term), len(other)) // 2 + 1)
            if term == other or (min(len(term), len(other)) >= enough and term[:enough] == other[:enough]):
                hits += 1
                break
    return hits / max(1, len(stem_terms))


def _top_sums(view: View, scores: F64, files: I64) -> F64:
    """Sum of the three best chunks of each file."""
    sums = np.zeros(len(files))
    for at, file in enumerate(files.tolist()):
        own = scores[view.first_chunk[file] : view.first_chunk[file] + view.chunks_per_file[file]]
        sums[at] = np.sort(own)[-3:].sum()
    return sums
