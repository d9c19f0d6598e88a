"""The chunks worth a closer look, each with the features that the chunk ranker weighs.

The order of the columns is part of a trained ranker; one that was trained on other columns is refused.
"""

from __future__ import annotations

import numpy as np

from sluice.search.index.view import View
from sluice.search.ranking.candidates import F64, I64, Candidates, best, best_chunks, matrix, ranks, relative, top
from sluice.search.ranking.evidence import Evidence
from sluice.search.ranking.files import FILE_FEATURES
from sluice.search.ranking.question import Question

MAX_CHUNKS = 300

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


def chunk_candidates(view: View, question: Question, evidence: Evidence, files: Candidates) -> Candidates:
    """The best chunks of the view; those of promising files are preferred.

    The columns on the file's standing (`FILE_STANDING`) are left empty for `add_file_standing`, because they hold
    what the file ranker says.
    """
    hope = np.zeros(len(view.files))
    hope[files.ids] = files.features[:, _BM25] + files.features[:, _BEST_CHUNK]
    owner = view.file_of_chunk
    bm25 = evidence.bm25 / top(evidence.bm25)
    hopeful = bm25 * (0.4 + hope[owner]) + 0.2 * evidence.title * (bm25 > 0) + 0.04 * hope[owner]
    ids = best(np.where(view.alive, hopeful, 0.0), MAX_CHUNKS)
    owners = owner[ids]
    best_in_file = best_chunks(view, bm25)
    same_before = (owner[np.maximum(ids - 1, 0)] == owners) & (ids > 0)
    after = np.minimum(ids + 1, len(owner) - 1)
    same_after = (owner[after] == owners) & (after != ids)
    lines = (view.ends - view.starts + 1)[ids]
    wanted = {name.lower() for name in question.identifiers}
    words = {word.lower() for word in question.words}
    shape = np.array([_shape(view, chunk, wanted, words) for chunk in ids.tolist()]).reshape(-1, 8)
    columns = {
        "bm25": bm25[ids],
        "head": relative(evidence.head_bm25)[ids],
        "coverage": evidence.coverage[ids],
        "title": evidence.title[ids],
        "named": evidence.named[ids],
        "owner_bm25": _best_of_owner(view, bm25)[ids],
        "before": np.where(same_before, bm25[np.maximum(ids - 1, 0)], 0.0),
        "after": np.where(same_after, bm25[after], 0.0),
        "rank": ranks(bm25[ids]),
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
    return Candidates(ids, matrix(columns, CHUNK_FEATURES))


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
    file_ranks = ranks(scores)
    position = {int(file): at for at, file in enumerate(files)}
    places = [position.get(int(file), -1) for file in owners]
    standing = np.array(
        [(weights[at], file_ranks[at], shares[at]) if at >= 0 else (0.0, len(files), 0.0) for at in places]
    ).reshape(-1, 3)
    for column, name in enumerate(FILE_STANDING):
        features[:, CHUNK_FEATURES.index(name)] = standing[:, column]
    return Candidates(chunks.ids, features)


def _shape(view: View, chunk: int, wanted: set[str], words: set[str]) -> tuple[float, ...]:
    """What kind of place a chunk is: `owner_named` to `in_tests`."""
    place = view.place_of(chunk)
    if place is None:
        return 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0
    named, worded = float(place.name in wanted), float(place.name in words)
    is_type = float(place.is_type)
    return (
        named,
        worded,
        1.0 - is_type,
        is_type,
        0.0,
        float(place.nesting),
        float(place.is_start),
        float(place.in_tests),
    )


def _best_of_owner(view: View, bm25: F64) -> F64:
    """For each chunk the best score among those of the same definition beside it; outside of any, its own."""
    if not len(bm25):
        return bm25
    return np.maximum.reduceat(bm25, view.owner_runs)[view.owner_run_of_chunk]


def _ranks_within(values: F64, groups: I64) -> F64:
    seen: dict[int, int] = {}
    ranks = np.empty(len(values))
    for at in np.argsort(-values, kind="stable").tolist():
        group = int(groups[at])
        ranks[at] = seen.get(group, 0)
        seen[group] = seen.get(group, 0) + 1
    return ranks
