"""The files and chunks worth a closer look, each with the features that the rankers weigh.

Features are relative to the best candidate or shares between 0 and 1 wherever they can be, so that what was learned on
one repository holds on another of another size. The order of columns is part of a trained ranker (`FILE_FEATURES`,
`CHUNK_FEATURES`); a ranker that was trained on other columns is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sluice.search.index.view import TYPE_KINDS, View, last_part, stem_of
from sluice.search.ranking.evidence import Evidence
from sluice.search.ranking.question import Question

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MAX_FILES = 60
MAX_CHUNKS = 300
_TEST_NAME = re.compile(r"^(tests?$|test_)|Tests?$|TestCase$|_tests?$")

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
CHUNK_FEATURES = (
    "bm25",
    "head",
    "coverage",
    "title",
    "named",
    "owner_bm25",
    "before",
    "after",
    "rank",
    "rank_in_file",
    "share_of_file",
    "file_score",
    "file_rank",
    "file_margin",
    "owner_named",
    "owner_word",
    "is_function",
    "is_class",
    "is_outside",
    "nesting",
    "starts_owner",
    "in_tests",
    "log_lines",
    "density",
    "place",
    "quality",
    "is_test",
    "is_prose",
    "num_terms",
    "is_symbol",
)


FILE_STANDING = ("file_score", "file_rank", "file_margin")
_BM25 = FILE_FEATURES.index("bm25")
_BEST_CHUNK = FILE_FEATURES.index("best_chunk")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Positions in a view, and a row of features for each."""

    ids: I64
    features: npt.NDArray[np.float32]


def file_candidates(view: View, question: Question, evidence: Evidence) -> Candidates:
    """The files that any measure puts in front. `features`: float32[n, len(FILE_FEATURES)]."""
    num_files = len(view.files)
    owner = view.file_of_chunk
    best_chunk = _best_chunks(view, evidence.bm25)
    bm25 = evidence.file_bm25 / _top(evidence.file_bm25)
    chunk = best_chunk / _top(best_chunk)
    hopeful = np.where(view.alive_files, bm25 + chunk + 0.5 * evidence.file_stem + 0.5 * evidence.file_title, 0.0)
    ids = _best(hopeful, MAX_FILES)
    sums = _top_sums(view, evidence.bm25, ids)
    hits = np.bincount(owner, evidence.bm25 > 0, num_files)
    defines = np.array([_defined(view, int(file), question) for file in ids]).reshape(-1, 3)
    num_terms = len(question.weights)
    columns = {
        "bm25": bm25[ids],
        "best_chunk": chunk[ids],
        "top_chunks": sums / _top(sums),
        "head": _relative(_best_chunks(view, evidence.head_bm25))[ids],
        "coverage": evidence.file_coverage[ids],
        "best_coverage": _best_chunks(view, evidence.coverage)[ids],
        "title": evidence.file_title[ids],
        "best_title": _best_chunks(view, evidence.title)[ids],
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
        "bm25_rank": _ranks(bm25[ids]),
        "chunk_rank": _ranks(chunk[ids]),
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
    return Candidates(ids, _matrix(columns, FILE_FEATURES))


def chunk_candidates(view: View, question: Question, evidence: Evidence, files: Candidates) -> Candidates:
    """The best chunks of the view; those of promising files are preferred.

    The columns on the file's standing (`FILE_STANDING`) are left empty for `add_file_standing`, because they hold
    what the file ranker says.
    """
    hope = np.zeros(len(view.files))
    hope[files.ids] = files.features[:, _BM25] + files.features[:, _BEST_CHUNK]
    owner = view.file_of_chunk
    bm25 = evidence.bm25 / _top(evidence.bm25)
    hopeful = bm25 * (0.4 + hope[owner]) + 0.2 * evidence.title * (bm25 > 0) + 0.04 * hope[owner]
    ids = _best(np.where(view.alive, hopeful, 0.0), MAX_CHUNKS)
    owners = owner[ids]
    best_in_file = _best_chunks(view, bm25)
    same_before = (owner[np.maximum(ids - 1, 0)] == owners) & (ids > 0)
    after = np.minimum(ids + 1, len(owner) - 1)
    same_after = (owner[after] == owners) & (after != ids)
    lines = (view.ends - view.starts + 1)[ids]
    wanted = {name.lower() for name in question.identifiers}
    words = {word.lower() for word in question.words}
    shape = np.array([_shape(view, chunk, wanted, words) for chunk in ids.tolist()]).reshape(-1, 8)
    columns = {
        "bm25": bm25[ids],
        "head": _relative(evidence.head_bm25)[ids],
        "coverage": evidence.coverage[ids],
        "title": evidence.title[ids],
        "named": evidence.named[ids],
        "owner_bm25": _owner_sums(view, bm25, ids),
        "before": np.where(same_before, bm25[np.maximum(ids - 1, 0)], 0.0),
        "after": np.where(same_after, bm25[after], 0.0),
        "rank": _ranks(bm25[ids]),
        "rank_in_file": _ranks_within(bm25[ids], owners),
        "share_of_file": bm25[ids] / np.maximum(best_in_file[owners], 1e-9),
        **{name: np.zeros(len(ids)) for name in FILE_STANDING},
        "owner_named": shape[:, 0],
        "owner_word": shape[:, 1],
        "is_function": shape[:, 2],
        "is_class": shape[:, 3],
        "is_outside": shape[:, 4],
        "nesting": shape[:, 5],
        "starts_owner": shape[:, 6],
        "in_tests": shape[:, 7],
        "log_lines": np.log1p(lines),
        "density": evidence.bm25[ids] / np.maximum(lines, 3),
        "place": view.starts[ids] / np.maximum(view.num_lines[owners], 1),
        "quality": evidence.bm25[ids] / max(1.0, sum(question.weights.values())),
        "is_test": view.is_test[owners],
        "is_prose": view.is_prose[owners],
        "num_terms": np.full(len(ids), len(question.weights)),
        "is_symbol": np.full(len(ids), question.is_symbol),
    }
    return Candidates(ids, _matrix(columns, CHUNK_FEATURES))


def add_file_standing(chunks: Candidates, owners: I64, files: I64, scores: F64) -> Candidates:
    """Fill in how the file ranker sees each chunk's file.

    Args:
        chunks: from `chunk_candidates`.
        owners: the file of each.
        files: the candidate files.
        scores: the file ranker's score of each, any scale.
    """
    features = chunks.features.copy()
    weights = np.exp(scores - scores.max(initial=-np.inf))
    shares = weights / max(float(weights.sum()), 1e-9)
    ranks = _ranks(scores)
    position = {int(file): at for at, file in enumerate(files)}
    places = [position.get(int(file), -1) for file in owners]
    standing = np.array(
        [(weights[at], ranks[at], shares[at]) if at >= 0 else (0.0, len(files), 0.0) for at in places]
    ).reshape(-1, 3)
    for column, name in enumerate(FILE_STANDING):
        features[:, CHUNK_FEATURES.index(name)] = standing[:, column]
    return Candidates(chunks.ids, features)


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
        for other in question.weights:
            enough = max(4, max(len(term), len(other)) // 2 + 1)
            if term == other or (min(len(term), len(other)) >= enough and term[:enough] == other[:enough]):
                hits += 1
                break
    return hits / max(1, len(stem_terms))


@lru_cache(maxsize=65_536)
def _is_test_name(name: str) -> bool:
    return _TEST_NAME.search(name) is not None


def _shape(view: View, chunk: int, wanted: set[str], words: set[str]) -> tuple[float, ...]:
    """What kind of place a chunk is: `owner_named` to `in_tests`."""
    entry = view.files[view.file_of_chunk[chunk]]
    index = int(view.owners[chunk])
    if index < 0:
        return 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0
    definition = entry.definitions[index]
    name = last_part(definition.name).lower()
    nesting, parent = 0, definition.parent
    in_tests = definition.kind == "test" or _is_test_name(definition.name)
    while parent >= 0 and nesting < 6:
        in_tests = in_tests or _is_test_name(entry.definitions[parent].name)
        nesting, parent = nesting + 1, entry.definitions[parent].parent
    return (
        float(name in wanted),
        float(name in words),
        float(definition.kind not in TYPE_KINDS),
        float(definition.kind in TYPE_KINDS),
        0.0,
        float(nesting),
        float(int(view.starts[chunk]) <= definition.start <= int(view.ends[chunk])),
        float(in_tests),
    )


def _owner_sums(view: View, bm25: F64, ids: I64) -> F64:
    """For each chunk the best score among the chunks of the same definition."""
    sums = np.zeros(len(ids))
    for at, chunk in enumerate(ids.tolist()):
        index = view.owners[chunk]
        low = high = chunk
        if index >= 0:
            file = view.file_of_chunk[chunk]
            while low > 0 and view.owners[low - 1] == index and view.file_of_chunk[low - 1] == file:
                low -= 1
            while high + 1 < len(bm25) and view.owners[high + 1] == index and view.file_of_chunk[high + 1] == file:
                high += 1
        sums[at] = bm25[low : high + 1].max()
    return sums


def _top_sums(view: View, scores: F64, files: I64) -> F64:
    """Sum of the three best chunks of each file."""
    sums = np.zeros(len(files))
    for at, file in enumerate(files.tolist()):
        own = scores[view.first_chunk[file] : view.first_chunk[file] + view.chunks_per_file[file]]
        sums[at] = np.sort(own)[-3:].sum()
    return sums


def _best_chunks(view: View, scores: F64) -> F64:
    """For each file the score of its best chunk; a file's chunks stand next to each other."""
    best = np.zeros(len(view.files))
    if len(scores):
        filled = view.chunks_per_file > 0
        best[filled] = np.maximum.reduceat(scores, view.first_chunk[filled])
    return best


def _top(values: F64) -> float:
    return max(float(values.max(initial=0.0)), 1e-9)


def _relative(values: F64) -> F64:
    return values / _top(values)


def _best(scores: F64, count: int) -> I64:
    """Positions of the best positive scores, best first; ties by position."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > count:
        cut = np.argpartition(-scores[positive], count)[:count]
        positive = np.sort(positive[cut])
    return positive[np.argsort(-scores[positive], kind="stable")]


def _ranks(values: F64) -> F64:
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return ranks


def _ranks_within(values: F64, groups: I64) -> F64:
    seen: dict[int, int] = {}
    ranks = np.empty(len(values))
    for at in np.argsort(-values, kind="stable").tolist():
        group = int(groups[at])
        ranks[at] = seen.get(group, 0)
        seen[group] = seen.get(group, 0) + 1
    return ranks


def _matrix(columns: dict[str, npt.NDArray[np.generic]], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    return np.column_stack([columns[name] for name in names]).astype(np.float32)
