"""Trains the rankers on the histories of open repositories; needs LightGBM, which the rankers themselves do not.

LambdaMART (Burges 2010) at each level; what one level says of a training question comes from a model that has not seen
that repository, because at work it will not have either. More of what ought to raise a score never lowers it
(monotone constraints): a few thousand questions are too few to learn that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sluice.eval.search.data import Query, Target
from sluice.eval.search.docstrings import without_lines
from sluice.eval.search.history import Asked, History
from sluice.eval.search.metrics import ndcg
from sluice.search.index.view import View
from sluice.search.ranking.candidates import Candidates
from sluice.search.ranking.chunks import CHUNK_FEATURES, add_file_standing, chunk_candidates
from sluice.search.ranking.evidence import gather
from sluice.search.ranking.files import FILE_FEATURES, file_candidates
from sluice.search.ranking.pieces import PIECE_FEATURES, Pieces, add_chunk_standing, cut_pieces
from sluice.search.ranking.question import parse_question
from sluice.search.ranking.trees import Trees, from_lightgbm

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Rows = tuple[str, str, F32, npt.NDArray[np.bool_]]
"""Repository, kind of question, features, which are right."""
NUM_CHUNKS_KEPT = 120
"""Chunks per question whose pieces are kept for training."""
NUM_CHUNKS_CUT = 40
"""Chunks per question whose pieces are trained on; more than are looked at by default, for larger budgets."""
NUM_FOLDS = 3
_RISING = {
    "file": "bm25 best_chunk top_chunks head coverage best_coverage title best_title path stem stem_share named "
    "defines_name defines_word is_named_so stem_alike opening",
    "chunk": "bm25 head coverage title named owner_bm25 before after share_of_file file_score file_margin owner_named "
    "owner_word density",
    "piece": "chunk_share chunk_margin match head_match best_term named before after share_of_chunk file_score "
    "file_margin chunk_bm25 chunk_title",
}
_FALLING = {
    "file": "bm25_rank chunk_rank",
    "chunk": "rank rank_in_file file_rank",
    "piece": "chunk_rank rank_in_chunk rank chunk_rank_in_file",
}
_NUM_TREES = {"file": 250, "chunk": 120, "piece": 120}
_LEARNING_RATE = {"file": 0.03, "chunk": 0.06, "piece": 0.06}
_FEATURE_FRACTION = {"file": 0.4, "chunk": 0.6, "piece": 0.6}
_WEIGHTS = {"added": 2.0, "file": 2.0, "doc": 0.5}
"""Kinds of questions that are rare in training and common at work count for more; a function's comment is neither."""
_TRUNCATION = {"file": 12, "chunk": 20, "piece": 30}
COLUMNS = {"file": FILE_FEATURES, "chunk": CHUNK_FEATURES, "piece": PIECE_FEATURES}


@dataclass
class Example:
    """A question's candidates at all three levels, with which of them are right."""

    repo: str
    kind: str
    file_ids: npt.NDArray[np.int64]
    file_rows: F32
    file_right: npt.NDArray[np.bool_]
    num_right_files: int
    chunk_ids: npt.NDArray[np.int64]
    chunk_files: npt.NDArray[np.int64]
    chunk_rows: F32
    chunk_right: npt.NDArray[np.bool_]
    pieces: Pieces | None
    """None where the answer is a file, not lines."""
    piece_right: npt.NDArray[np.bool_]


def example_of(asked: Asked, history: History) -> Example:
    """Candidates for one question; the trees that rank later are not needed yet."""
    view, query = asked.view, asked.query
    question = parse_question(query.text)
    evidence = gather(view, question)
    files = file_candidates(view, question, evidence)
    chunks = chunk_candidates(view, question, evidence, files)
    owners = view.file_of_chunk[chunks.ids]
    lines = [target for target in query.targets if target.start is not None]
    pieces: Pieces | None = None
    if lines:
        kept = chunks.ids[:NUM_CHUNKS_KEPT]
        paths = {int(file): view.files[file].path for file in view.file_of_chunk[kept]}
        contents = history.read([asked.blobs[path] for path in paths.values()])
        shown = {
            file: without_lines(contents[asked.blobs[path]], asked.hidden.get(path, ())) for file, path in paths.items()
        }
        texts = {file: data.decode("utf-8", "replace").split("\n") for file, data in shown.items()}
        pieces = cut_pieces(view, question, evidence.rarity, kept, texts)
    starts, ends = view.starts[chunks.ids], view.ends[chunks.ids]
    return Example(
        query.repo,
        _kind(query),
        files.ids,
        files.features,
        np.array([view.files[file].path in query.paths for file in files.ids], np.bool_),
        len(query.paths),
        chunks.ids,
        owners,
        chunks.features,
        _overlapping(view, owners, starts, ends, lines),
        pieces,
        np.zeros(0, np.bool_)
        if pieces is None
        else _overlapping(view, pieces.files, pieces.starts, pieces.ends, lines),
    )


def examples_of(directories: Iterable[Path], num_commits: int, num_comments: int, num_additions: int) -> list[Example]:
    """Questions out of several repositories."""
    examples: list[Example] = []
    for directory in directories:
        history = History(directory)
        asked = chain(history.commits(num_commits), history.comments(num_comments), history.additions(num_additions))
        examples.extend(example_of(one, history) for one in asked)  # one tree in memory at a time
    return examples


def train(examples: Sequence[Example], report: Callable[[str], None]) -> dict[str, Trees]:
    """All three rankers, one after the other.

    Args:
        examples: of several repositories; folds are by repository.
        report: is told the file ranker's cross-validated NDCG@10 per kind of question.

    Raises:
        ValueError: they are of one repository, or none: what one level says must come from others.
    """
    repos = sorted({example.repo for example in examples})
    if len(repos) < 2:
        raise ValueError(f"training needs questions out of two repositories at least, not of {repos}")
    folds = [set(repos[at::NUM_FOLDS]) for at in range(NUM_FOLDS)]
    file_data = [(e.repo, e.kind, e.file_rows, e.file_right) for e in examples]
    file_trees, file_scores = _level("file", file_data, folds)
    for kind in sorted({example.kind for example in examples}):
        values = [_file_ndcg(e, s) for e, s in zip(examples, file_scores, strict=True) if e.kind == kind]
        report(f"files, {kind}: NDCG@10 {np.mean(values):.4f} over {len(values)} unseen")
    with_lines = [(e, s) for e, s in zip(examples, file_scores, strict=True) if e.pieces is not None]
    standing = [
        add_file_standing(Candidates(e.chunk_ids, e.chunk_rows), e.chunk_files, e.file_ids, s).features
        for e, s in with_lines
    ]
    chunk_data = [(e.repo, e.kind, rows, e.chunk_right) for (e, _), rows in zip(with_lines, standing, strict=True)]
    chunk_trees, chunk_scores = _level("chunk", chunk_data, folds)
    piece_data = [
        _piece_rows(e, rows, scores) for (e, _), rows, scores in zip(with_lines, standing, chunk_scores, strict=True)
    ]
    return {"file": file_trees, "chunk": chunk_trees, "piece": _fit("piece", piece_data)}


def save(trees: dict[str, Trees], path: Path) -> None:
    """Write what `learned_rankers` reads."""
    arrays = {name: array for level, tree in trees.items() for name, array in tree.arrays(level).items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # the stub takes no generic arrays


def _level(level: str, data: Sequence[Rows], folds: Sequence[set[str]]) -> tuple[Trees, list[F64]]:
    """The ranker of a level, and scores of every question by a ranker that has not seen its repository."""
    scores: list[F64] = [np.zeros(0)] * len(data)
    for fold in folds:
        trees = _fit(level, [row for row in data if row[0] not in fold])
        for at, (repo, _, rows, _) in enumerate(data):
            if repo in fold:
                scores[at] = trees.score(rows)
    return _fit(level, data), scores


def _fit(level: str, data: Sequence[Rows]) -> Trees:
    import lightgbm

    usable = [(_WEIGHTS.get(kind, 1.0), rows, right) for _, kind, rows, right in data if right.any()]
    rising, falling = _RISING[level].split(), _FALLING[level].split()
    parameters: dict[str, Any] = {
        "objective": "lambdarank",
        "learning_rate": _LEARNING_RATE[level],
        "num_leaves": 15,
        "max_depth": 6,
        "min_data_in_leaf": 80,
        "feature_fraction": _FEATURE_FRACTION[level],
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "max_bin": 127,
        "lambdarank_truncation_level": _TRUNCATION[level],
        "monotone_constraints": [(name in rising) - (name in falling) for name in COLUMNS[level]],
        "seed": 1,
        "deterministic": True,
        "num_threads": 1,  # more spin where cores are shared, and these sets are small
        "verbose": -1,
    }
    dataset = lightgbm.Dataset(
        np.concatenate([rows for _, rows, _ in usable]),
        np.concatenate([right for _, _, right in usable]).astype(np.int32),
        weight=np.concatenate([np.full(len(right), weight) for weight, _, right in usable]),
        group=[len(right) for _, _, right in usable],
    )
    booster = lightgbm.train(parameters, dataset, _NUM_TREES[level])
    return from_lightgbm(booster.dump_model(), COLUMNS[level])


def _piece_rows(example: Example, chunk_rows: F32, chunk_scores: F64) -> Rows:
    """The pieces of the chunks that would be cut, as they would be seen then."""
    assert example.pieces is not None
    scores = chunk_scores[:NUM_CHUNKS_KEPT]
    kept = np.argsort(-scores, kind="stable")[:NUM_CHUNKS_CUT]
    position = np.full(len(scores), -1)
    position[kept] = np.arange(len(kept))
    pieces = example.pieces
    chosen = position[pieces.chunks] >= 0
    inside = Pieces(
        pieces.files[chosen],
        pieces.starts[chosen],
        pieces.ends[chosen],
        position[pieces.chunks[chosen]],
        (),
        pieces.features[chosen],
    )
    rows = add_chunk_standing(inside, chunk_rows[kept], scores[kept])
    return example.repo, example.kind, rows, example.piece_right[chosen]


def _overlapping(
    view: View,
    files: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    targets: Sequence[Target],
) -> npt.NDArray[np.bool_]:
    return np.array(
        [
            any(target.overlaps(view.files[file].path, start, end) for target in targets)
            for file, start, end in zip(files.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ],
        np.bool_,
    )


@dataclass(frozen=True, slots=True)
class _Whole:
    path: str
    start: int = 1
    end: int = 1


def _file_ndcg(example: Example, scores: F64) -> float:
    order = np.argsort(-scores, kind="stable")
    ranked = [_Whole(str(file)) for file in example.file_ids[order]]
    right = [Target(str(file)) for file in example.file_ids[example.file_right]]
    missing = [Target("")] * (example.num_right_files - len(right))
    return ndcg(ranked, [*right, *missing])


def _kind(query: Query) -> str:
    return query.kind if query.kind == "change" else query.id.rsplit("-", 2)[-2]
