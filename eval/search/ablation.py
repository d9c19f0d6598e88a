"""What each part of the ranking is worth: the same index with parts exchanged."""

from __future__ import annotations

from sluice.search.ranking.chunks import CHUNK_FEATURES
from sluice.search.ranking.files import FILE_FEATURES
from sluice.search.ranking.pieces import PIECE_FEATURES
from sluice.search.ranking.rankers import Linear, Rankers, hand_set_rankers, learned_rankers


def variants() -> dict[str, Rankers]:
    """Name of a row → rankers, from the barest to what is shipped."""
    hand, learned = hand_set_rankers(), learned_rankers()
    bare = Rankers(
        Linear(FILE_FEATURES, {"bm25": 1.0}),
        Linear(CHUNK_FEATURES, {"bm25": 1.0}),
        Linear(PIECE_FEATURES, {"chunk_share": 1.0}),
    )
    return {
        "BM25F files, BM25 chunks, whole chunks": bare,
        "hand-set weights at all levels": hand,
        "learned files, hand-set lines": Rankers(learned.file, hand.chunk, hand.piece),
        "learned files and chunks, hand-set pieces": Rankers(learned.file, learned.chunk, hand.piece),
        "learned at all levels (shipped)": learned,
    }
