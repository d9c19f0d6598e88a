"""A segment: all that the index knows of one file's content, apart from its path, packed into bytes.

Depends on the bytes and the language alone, so that worktrees, branches and copies share it under the content's hash.
Knows no paths, no other files and no scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from sluice.compressor.syntax import Definition, Language, Statement, outline
from sluice.search.index.chunks import cut
from sluice.search.index.tokenizer import raw_tokens, terms_of

FORMAT = b"5"
"""Changes when the same bytes would give another segment: chunking, tokenising, packing."""

U32 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Segment:
    """One file's chunks, definitions and postings. All arrays are one-dimensional."""

    language: str
    """Name of the grammar; empty for a file that was cut into plain windows."""
    num_lines: int
    definitions: tuple[Definition, ...]
    starts: U32
    """First line of each chunk."""
    ends: U32
    """Last line of each chunk."""
    owners: I32
    """Index of each chunk's definition, -1 for none."""
    lengths: U32
    """Terms in each chunk, repetitions counted."""
    terms: tuple[str, ...]
    """Distinct terms of the file."""
    posting_terms: U32
    posting_chunks: U32
    posting_counts: U8
    """Postings of the body: term, chunk, occurrences (255 at most)."""
    title_terms: U32
    title_chunks: U32
    """Postings of the names of the definitions around and in each chunk."""
    levels: U8
    """For each line 1 + the depth of the shallowest statement that starts there, 0 where none does."""


def build_segment(data: bytes, language: Language | None, hidden_lines: frozenset[int] = frozenset()) -> Segment:
    """Make a segment of a file's bytes.

    Args:
        data: any bytes; what is not UTF-8 is replaced.
        language: None for a file without a grammar.
        hidden_lines: lines (from 1) that give no terms; for measurements that hide the text which asks.
    """
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    found = None if language is None else outline(data, language)
    definitions = () if found is None else found.definitions
    chunks = cut(lines, found)
    term_ids: dict[str, int] = {}
    posting_terms: list[int] = []
    posting_chunks: list[int] = []
    posting_counts: list[int] = []
    lengths: list[int] = []
    inner = _definitions_by_chunk(definitions, [chunk.start for chunk in chunks])
    title_terms: list[int] = []
    title_chunks: list[int] = []
    for number, chunk in enumerate(chunks):
        visible = lines[chunk.start - 1 : chunk.end]
        if hidden_lines:
            visible = [line for at, line in enumerate(visible, chunk.start) if at not in hidden_lines]
        counts: Counter[str] = Counter()
        for token, times in Counter(raw_tokens("\n".join(visible))).items():
            for term in terms_of(token):
                counts[term] += times
        lengths.append(sum(counts.values()))
        posting_terms.extend([term_ids.setdefault(term, len(term_ids)) for term in counts])
        posting_chunks.extend([number] * len(counts))
        posting_counts.extend(counts.values())
        title: dict[str, None] = {}
        for name in _names_around(definitions, chunk.definition, inner[number]):
            for token in raw_tokens(name):
                title.update(dict.fromkeys(terms_of(token)))
        title_terms.extend(term_ids.setdefault(term, len(term_ids)) for term in title)
        title_chunks.extend([number] * len(title))
    return Segment(
        "" if found is None or language is None else language.name,
        len(lines),
        definitions,
        np.array([chunk.start for chunk in chunks], np.uint32),
        np.array([chunk.end for chunk in chunks], np.uint32),
        np.array([chunk.definition for chunk in chunks], np.int32),
        np.array(lengths, np.uint32),
        tuple(term_ids),
        np.array(posting_terms, np.uint32),
        np.array(posting_chunks, np.uint32),
        np.minimum(np.array(posting_counts, np.int64), 255).astype(np.uint8),
        np.array(title_terms, np.uint32),
        np.array(title_chunks, np.uint32),
        _levels(len(lines), () if found is None else found.statements),
    )


def _levels(num_lines: int, statements: Sequence[Statement]) -> U8:
    levels = np.zeros(num_lines, np.uint8)
    for statement in statements:
        at = statement.start - 1
        if at < num_lines and (levels[at] == 0 or statement.depth + 1 < levels[at]):
            levels[at] = min(statement.depth + 1, 255)
    return levels


def _definitions_by_chunk(definitions: Sequence[Definition], starts: Sequence[int]) -> list[list[int]]:
    """For each chunk the definitions whose first line lies in it."""
    inside: list[list[int]] = [[] for _ in starts]
    if starts:
        places = np.searchsorted(np.array(starts), [definition.start for definition in definitions], side="right") - 1
        for index, place in enumerate(places.tolist()):
            inside[place].append(index)
    return inside


def _names_around(definitions: Sequence[Definition], owner: int, inner: Sequence[int]) -> list[str]:
    """Names of the chunk's definition, of those around it, and of those that begin in it."""
    indexes = set(inner)
    while owner >= 0:
        indexes.add(owner)
        owner = definitions[owner].parent
    return [definitions[index].name for index in sorted(indexes)]


def pack(segment: Segment) -> bytes:
    """The segment as bytes, MessagePack around little-endian arrays."""
    return _encoder.encode(
        (
            segment.language,
            segment.num_lines,
            [(d.kind, d.name, d.start, d.end, d.signature_end, d.parent, d.lead) for d in segment.definitions],
            "\0".join(segment.terms),
            [getattr(segment, name).tobytes() for name, _ in _ARRAYS],
        )
    )


def unpack(data: bytes) -> Segment:
    """The reverse of `pack`.

    Raises:
        ValueError: these bytes are no segment.
    """
    try:
        language, num_lines, definitions, terms, arrays = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a segment: {error}") from error
    parsed = [np.frombuffer(raw, dtype) for raw, (_, dtype) in zip(arrays, _ARRAYS, strict=True)]
    return Segment(
        language,
        num_lines,
        tuple(Definition(*fields) for fields in definitions),
        parsed[0],
        parsed[1],
        parsed[2],
        parsed[3],
        tuple(terms.split("\0")) if terms else (),
        parsed[4],
        parsed[5],
        parsed[6],
        parsed[7],
        parsed[8],
        parsed[9],
    )


_ARRAYS: tuple[tuple[str, type[np.generic]], ...] = (
    ("starts", np.uint32),
    ("ends", np.uint32),
    ("owners", np.int32),
    ("lengths", np.uint32),
    ("posting_terms", np.uint32),
    ("posting_chunks", np.uint32),
    ("posting_counts", np.uint8),
    ("title_terms", np.uint32),
    ("title_chunks", np.uint32),
    ("levels", np.uint8),
)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(
    tuple[str, int, list[tuple[str, str, int, int, int, int, int]], str, list[bytes]]  # what `pack` writes
)
