"""Answers a question from an index alone: files, then chunks, then lines. Calls no model and keeps no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice.search.errors import QueryError
from sluice.search.index.view import View
from sluice.search.ranking.candidates import Candidates, best_chunks
from sluice.search.ranking.chunks import add_file_standing, chunk_candidates
from sluice.search.ranking.evidence import Evidence, gather
from sluice.search.ranking.files import file_candidates
from sluice.search.ranking.lines import Lines
from sluice.search.ranking.pieces import Pieces, add_chunk_standing, cut_pieces
from sluice.search.ranking.question import Question, parse_question
from sluice.search.ranking.rankers import Rankers
from sluice.search.ranking.spans import NUM_POINTED, Span, enclosing_definition, select_spans
from sluice.search.settings import MIN_BUDGET_TOKENS
from sluice.search.types import SearchResult

NUM_CHUNKS_CUT = 24
"""The best chunks whose lines are looked at, with a budget of up to 2,000 tokens."""
TOKENS_PER_CHUNK = 80
"""A larger budget has one more chunk looked at for so many tokens."""
MAX_FILES_READ = 16
MAX_REASON_WORDS = 5
DENSE_FILE_WEIGHT = 2.0
"""What a cosine of 1 adds to a file's score, where there are vectors; set by hand."""
DENSE_CHUNK_WEIGHT = 2.0
"""Likewise for a chunk's."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What the rankers made of a question, best first."""

    question: Question
    files: npt.NDArray[np.int64]
    file_scores: npt.NDArray[np.float64]
    chunks: Candidates
    """The best, with their file's standing."""
    chunk_scores: npt.NDArray[np.float64]
    evidence: Evidence


def rank(
    view: View,
    text: str,
    rankers: Rankers,
    num_chunks: int = NUM_CHUNKS_CUT,
    similarities: npt.NDArray[np.float64] | None = None,
) -> Ranking:
    """Rank files and chunks; the best `num_chunks` are kept.

    Args:
        view: what is searched.
        text: the question.
        rankers: learned or hand-set.
        num_chunks: to be kept.
        similarities: cosine of the question and each chunk, where there is a dense tier and it is ready.

    Raises:
        QueryError: the question holds nothing to search for.
    """
    question = parse_question(text)
    evidence = gather(view, question)
    files = file_candidates(view, question, evidence)
    file_scores = rankers.file.score(files.features) if len(files.ids) else np.zeros(0)
    if similarities is not None:
        file_scores = file_scores + DENSE_FILE_WEIGHT * best_chunks(view, similarities)[files.ids]
    chunks = chunk_candidates(view, question, evidence, files)
    owners = view.file_of_chunk[chunks.ids]
    chunks = add_file_standing(chunks, owners, files.ids, file_scores)
    chunk_scores = rankers.chunk.score(chunks.features) if len(chunks.ids) else np.zeros(0)
    if similarities is not None:
        chunk_scores = chunk_scores + DENSE_CHUNK_WEIGHT * similarities[chunks.ids]
    by_file = np.argsort(-file_scores, kind="stable")
    by_chunk = _chunks_to_cut(chunk_scores, owners, files.ids[by_file], num_chunks)
    return Ranking(
        question,
        files.ids[by_file],
        file_scores[by_file],
        Candidates(chunks.ids[by_chunk], chunks.features[by_chunk]),
        chunk_scores[by_chunk],
        evidence,
    )


def _chunks_to_cut(
    scores: npt.NDArray[np.float64], owners: npt.NDArray[np.int64], files: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """The best chunks, and the best of each of the first files even if it is not among them."""
    order = np.argsort(-scores, kind="stable")
    chosen = order[:count].tolist()
    seen = set(owners[chosen].tolist())
    missing = set(files[:NUM_POINTED].tolist()) - seen
    for at in order[count:].tolist():
        if int(owners[at]) in missing:
            missing.discard(int(owners[at]))
            chosen.append(at)
    return np.array(chosen, np.int64)


def answer(
    view: View,
    text: str,
    rankers: Rankers,
    read: Callable[[str], bytes],
    *,
    budget_tokens: int,
    max_results: int | None = None,
    similarities: npt.NDArray[np.float64] | None = None,
) -> list[SearchResult]:
    """The line ranges that answer a question, best first, within a budget.

    Args:
        view: what is searched.
        text: the question.
        rankers: learned or hand-set.
        read: gives a file's bytes by its path; files that it raises OSError for are left out.
        budget_tokens: that the results may take together.
        max_results: at most so many; None: as many as fit.
        similarities: as for `rank`.

    Raises:
        QueryError: the question holds nothing to search for, or the budget holds no result.
    """
    if budget_tokens < MIN_BUDGET_TOKENS:
        raise QueryError(f"a budget of {budget_tokens} tokens holds no result; the least is {MIN_BUDGET_TOKENS}")
    if not view.num_files:
        parse_question(text)  # a bad question is one in an empty tree as well
        return []
    num_chunks = max(NUM_CHUNKS_CUT, budget_tokens // TOKENS_PER_CHUNK)
    ranking = rank(view, text, rankers, num_chunks, similarities)
    texts = read_texts(view, ranking, read, max(MAX_FILES_READ, num_chunks // 2))
    pieces = cut_pieces(view, ranking.question, ranking.evidence.rarity, ranking.chunks.ids, texts)
    if not len(pieces.files):
        return []
    features = add_chunk_standing(pieces, ranking.chunks.features, ranking.chunk_scores)
    scores = rankers.piece.score(features)
    spans = select_spans(view, pieces, scores, ranking.files.tolist(), texts, budget_tokens)
    top = float(scores.max())
    return [_result(view, ranking.question, pieces, span, texts[span.file], top) for span in spans[:max_results]]


def read_texts(
    view: View, ranking: Ranking, read: Callable[[str], bytes], max_files: int = MAX_FILES_READ
) -> dict[int, Lines]:
    """Lines of the files that the best chunks and the best files need, by position in the view."""
    of_chunks = dict.fromkeys(view.file_of_chunk[ranking.chunks.ids].tolist())
    first = [file for file in ranking.files[:NUM_POINTED].tolist() if file in of_chunks]
    texts: dict[int, Lines] = {}
    for file in list(dict.fromkeys([*first, *of_chunks]))[:max_files]:
        try:
            texts[file] = Lines(read(view.files[file].path))
        except OSError:
            continue  # gone meanwhile
    return texts


def _result(
    view: View, question: Question, pieces: Pieces, span: Span, lines: Sequence[str], top: float
) -> SearchResult:
    entry = view.files[span.file]
    around = enclosing_definition(entry.definitions, span.start, span.end)
    terms = pieces.matched[span.piece] if span.piece >= 0 else ()
    words = [question.spoken[term] for term in sorted(terms, key=lambda t: -question.weights[t])]
    reason = [] if around is None else [f"in {around.kind} {around.name}".rstrip()]
    if words:
        reason.append("matches " + ", ".join(dict.fromkeys(words[:MAX_REASON_WORDS])))
    return SearchResult(
        entry.path,
        span.start,
        span.end,
        round(float(np.exp(min(0.0, span.score - top))), 4),
        "; ".join(reason) or "ranks high as a file",
        "\n".join(lines[span.start - 1 : span.end]),
    )
