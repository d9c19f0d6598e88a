"""Cuts the chunks that ranked best into pieces of a few statements, with the features that tell which of them to show.

A chunk is what one looks for; a piece is what one needs to read of it. Works on the lines as they stand in the file.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from sluice.compressor.syntax import Definition
from sluice.search.index.tokenizer import raw_tokens, terms_of
from sluice.search.index.view import View
from sluice.search.ranking.candidates import ranks
from sluice.search.ranking.chunks import CHUNK_FEATURES
from sluice.search.ranking.question import Question

TARGET_LINES = 6
MAX_LINES = 10
_COMMENT = ("#", "//", "/*", "*", "--", "%", ";;", '"""', "'''")
# What says nothing by itself: an import, or what closes a block.
_PLAIN = ("import ", "from ", "use ", "using ", "require ", "package ", "include ", "#include ", "alias ")
_BLANK = " \t\r"
_CLOSING = _BLANK + ")]}>;,"

PIECE_FEATURES = (
    "chunk_share",
    "chunk_rank",
    "chunk_margin",
    "match",
    "head_match",
    "best_term",
    "num_matched",
    "named",
    "before",
    "after",
    "share_of_chunk",
    "rank_in_chunk",
    "rank",
    "starts_definition",
    "is_whole_chunk",
    "place_in_chunk",
    "place_in_owner",
    "log_owner_lines",
    "lines",
    "log_chars",
    "comment_share",
    "plain_share",
    "level",
    "file_score",
    "file_margin",
    "chunk_bm25",
    "chunk_title",
    "chunk_rank_in_file",
    "is_function",
    "is_class",
    "is_outside",
    "in_tests",
    "num_terms",
)
_FROM_CHUNK = {
    "file_score": "file_score",
    "file_margin": "file_margin",
    "chunk_bm25": "bm25",
    "chunk_title": "title",
    "chunk_rank_in_file": "rank_in_file",
    "is_function": "is_function",
    "is_class": "is_class",
    "is_outside": "is_outside",
    "in_tests": "in_tests",
}


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of chunks. Arrays are parallel; lines from 1, both ends included."""

    files: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    chunks: npt.NDArray[np.int64]
    """Position of each piece's chunk among the chunks that were given."""
    matched: tuple[tuple[str, ...], ...]
    """The question's terms in each."""
    features: npt.NDArray[np.float32]


def cut_pieces(
    view: View,
    question: Question,
    rarity: Mapping[str, float],
    chunks: npt.NDArray[np.int64],
    texts: Mapping[int, Sequence[str]],
) -> Pieces:
    """Cut chunks into pieces; the columns on the chunk's standing are left empty for `add_chunk_standing`.

    Args:
        view: what is searched.
        question: what is asked.
        rarity: each term's share of the question's weight.
        chunks: the chunks to cut.
        texts: lines of every file that a chunk is of, by its position in the view; chunks of other files are left out.
    """
    identifiers = {name.lower().strip("_") for name in question.identifiers}
    known = _Known(rarity)
    rows: list[tuple[int, int, int, int]] = []
    matched: list[tuple[str, ...]] = []
    values: list[list[float]] = []
    for position, chunk in enumerate(chunks.tolist()):
        file = int(view.file_of_chunk[chunk])
        lines = texts.get(file)
        start = int(view.starts[chunk])
        if lines is None or start > len(lines):
            continue
        entry = view.files[file]
        end = min(int(view.ends[chunk]), len(lines))
        owner = int(view.owners[chunk])
        top, bottom = (
            (entry.definitions[owner].start, entry.definitions[owner].end) if owner >= 0 else (1, entry.num_lines)
        )
        first = bisect_left(entry.definitions, start, key=_first_line)
        last = bisect_right(entry.definitions, end, key=_first_line)
        heads = [definition.start for definition in entry.definitions[first:last]]
        bounds = piece_bounds(entry.levels[start - 1 : end].tolist(), start, end)
        of_chunk = lines[start - 1 : end]
        bare = [line.strip(_BLANK) for line in of_chunk]
        is_comment = [line.startswith(_COMMENT) for line in bare]
        is_plain = [line.startswith(_PLAIN) or line == "end" or not line.strip(_CLOSING) for line in bare]
        texts_of = [of_chunk[low - start : high - start + 1] for low, high in bounds]
        found = [known.in_lines(piece) for piece in texts_of]
        match = [sum(rarity[term] for term in terms) for terms in found]
        order = sorted(range(len(bounds)), key=lambda i: -match[i])
        for at, (low, high) in enumerate(bounds):
            terms = found[at]
            piece = texts_of[at]
            own_lines = slice(low - start, high - start + 1)
            rows.append((file, low, high, position))
            matched.append(terms)
            own: dict[str, float] = {
                "match": match[at],
                "head_match": sum(rarity[term] for term in terms if term in question.head),
                "best_term": max((rarity[term] for term in terms), default=0.0),
                "num_matched": len(terms),
                "named": sum(rarity[term] for term in terms if term in identifiers),
                "before": match[at - 1] if at else 0.0,
                "after": match[at + 1] if at + 1 < len(bounds) else 0.0,
                "share_of_chunk": match[at] / max([*match, 1e-9]),
                "rank_in_chunk": order.index(at),
                "starts_definition": any(low <= head <= high for head in heads),
                "is_whole_chunk": len(bounds) == 1,
                "place_in_chunk": (low - start) / max(1, end - start + 1),
                "place_in_owner": (low - top) / max(1, bottom - top + 1),
                "log_owner_lines": math.log1p(max(0, bottom - top + 1)),
                "lines": high - low + 1,
                "log_chars": math.log1p(sum(map(len, piece))),
                "comment_share": sum(is_comment[own_lines]) / len(piece),
                "plain_share": sum(is_plain[own_lines]) / len(piece),
                "level": int(entry.levels[low - 1]) if low <= len(entry.levels) else 0,
                "num_terms": len(question.weights),
            }
            values.append([float(own.get(name, 0.0)) for name in PIECE_FEATURES])
    table = np.array(rows, np.int64).reshape(-1, 4)
    features = np.array(values, np.float32).reshape(-1, len(PIECE_FEATURES))
    return Pieces(table[:, 0], table[:, 1], table[:, 2], table[:, 3], tuple(matched), features)


def add_chunk_standing(
    pieces: Pieces, chunks: npt.NDArray[np.float32], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """The pieces' features with how the chunk ranker sees each piece's chunk filled in.

    Args:
        pieces: from `cut_pieces`.
        chunks: features of the chunks that were cut, float32[n, len(CHUNK_FEATURES)], the file's standing included.
        scores: the chunk ranker's scores of them, float64[n].
    """
    features = pieces.features.copy()
    weights = np.exp(scores - scores.max(initial=-np.inf))
    column = PIECE_FEATURES.index
    features[:, column("chunk_share")] = weights[pieces.chunks]
    features[:, column("chunk_rank")] = ranks(scores)[pieces.chunks]
    features[:, column("chunk_margin")] = (weights / max(float(weights.sum()), 1e-9))[pieces.chunks]
    for name, source in _FROM_CHUNK.items():
        features[:, column(name)] = chunks[pieces.chunks, CHUNK_FEATURES.index(source)]
    hope = features[:, column("match")] * features[:, column("chunk_share")]
    features[np.argsort(-hope, kind="stable"), column("rank")] = np.arange(len(features))
    return features


def piece_bounds(levels: Sequence[int], start: int, end: int) -> list[tuple[int, int]]:
    """Cut lines `start` to `end` where statements begin (`levels`, of these lines), about `TARGET_LINES` apart."""
    bounds: list[tuple[int, int]] = []
    low = start
    while end - low + 1 > MAX_LINES:
        best, best_cost = low + TARGET_LINES, 1e9
        for line in range(low + 3, min(low + MAX_LINES, end - 1) + 1):
            level = levels[line - start] if line - start < len(levels) else 0
            cost = abs(line - low - TARGET_LINES) + (6 if level == 0 else 0.8 * min(level, 8))
            if cost < best_cost:
                best, best_cost = line, cost
        bounds.append((low, best - 1))
        low = best
    bounds.append((low, end))
    return bounds


def _first_line(definition: Definition) -> int:
    return definition.start


class _Known(dict[str, tuple[str, ...]]):
    """The terms of a question that each word of a text stands for, found when a word is first seen."""

    def __init__(self, rarity: Mapping[str, float]) -> None:
        super().__init__()
        self._rarity = rarity

    def __missing__(self, token: str) -> tuple[str, ...]:
        found = self[token] = tuple(term for term in terms_of(token) if term in self._rarity)
        return found

    def in_lines(self, lines: Sequence[str]) -> tuple[str, ...]:
        """The question's terms that stand in lines, in the order of the text, so that sums come out the same always."""
        return tuple(dict.fromkeys(chain.from_iterable(map(self.__getitem__, raw_tokens("\n".join(lines))))))
