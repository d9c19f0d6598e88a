"""Examples for the scorer: lines of recorded conversations at arrival and at epochs, and what was needed later.

A fact counts at a moment only if nothing shows it between the moment and the need. At arrival it is credited to the
first line that shows it, at an epoch to the last one: the line that would have to keep it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from sluice.compressor.dialects import OPENAI_CHAT
from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.files import FileHistory
from sluice.compressor.provenance import Origins
from sluice.compressor.scoring.base import Moment
from sluice.compressor.scoring.features import FEATURES, FeatureReader, Table
from sluice.eval.data import Trace, Turn
from sluice.eval.facts import needed_facts

EPOCH_EVERY = 5
"""After each so many tool results an epoch may be sampled, besides those right after a user message."""
NUM_EXEMPT = 3
"""Newest results that an epoch does not touch."""
MIN_RESULTS = 5


@dataclass(frozen=True, slots=True)
class Examples:
    """Lines as the model sees them, and what became of them."""

    features: npt.NDArray[np.float32]
    """(examples, `FEATURES`)"""
    num_words: npt.NDArray[np.float32]
    """Telling words that were needed later and that this line kept."""
    num_lines: npt.NDArray[np.float32]
    """1 where the line was quoted later."""
    weights: npt.NDArray[np.float32]
    """How many lines of the conversations the example stands for."""
    is_line_fact: npt.NDArray[np.bool_]
    has_word_fact: npt.NDArray[np.bool_]
    places: npt.NDArray[np.int32]
    """(examples, 3): index of the message, of its text, and of the line in it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One conversation's examples, and where it comes from."""

    agent: str
    repository: str
    examples: Examples


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many examples are taken."""

    arrival_share: float = 0.25
    """Of the lines at arrival of which nothing was needed."""
    epoch_share: float = 0.05
    """Of the lines at epochs of which nothing was needed."""
    max_epochs: int = 10
    """Per conversation."""
    max_turns: int = 80


@dataclass(frozen=True, slots=True)
class Look:
    """Tool results as they are looked at at one moment, and what was needed of their lines afterwards."""

    evidence: Evidence
    """As it is at that moment: it grows on."""
    segments: Sequence[SegmentEvidence]
    messages: Sequence[int]
    """Index of each segment's message in the conversation."""
    moment: Moment
    table: Table
    num_words: npt.NDArray[np.float32]
    """See `Examples`; of all lines of the segments."""
    num_lines: npt.NDArray[np.float32]

    @property
    def places(self) -> npt.NDArray[np.int32]:
        """See `Examples`."""
        parts = [
            np.stack([np.full(size, at), np.full(size, segment.index), np.arange(size)], axis=1)
            for at, segment in zip(self.messages, self.segments, strict=True)
            for size in (len(segment.lines),)
        ]
        return np.concatenate(parts).astype(np.int32)


@dataclass(frozen=True, slots=True)
class _Need:
    answer: int
    is_word: bool
    spots: tuple[tuple[int, int], ...]


def examples(trace: Trace, sampling: Sampling, seed: int) -> Examples:
    """The examples of one conversation, drawn with a seed of its own."""
    draw = draw_for(trace, seed)
    return concatenate([sampled(look, sampling, draw) for look in looks(trace, sampling, draw)])


def draw_for(trace: Trace, seed: int) -> random.Random:
    """What epochs and examples of one conversation are drawn with."""
    return random.Random(f"scorer {seed} {trace.id}")  # noqa: S311 (a sample, no secret)


def looks(trace: Trace, sampling: Sampling, draw: random.Random) -> Iterator[Look]:
    """Every result of a conversation at its arrival, and the old ones at some epochs, in order.

    Args:
        trace: the conversation.
        sampling: how many turns and epochs.
        draw: which epochs.
    """
    turns = trace.turns(sampling.max_turns)
    facts = needed_facts(trace, turns)
    needs = [
        _Need(turn.answer, is_word, fact.spots)
        for turn, found in zip(turns, facts, strict=True)
        for is_word, one_kind in ((True, found.words), (False, found.lines))
        for fact in one_kind
    ]
    for chain in _chains(turns):
        yield from _of_chain(trace, chain, needs, sampling, draw)


def sampled(look: Look, sampling: Sampling, draw: random.Random) -> Examples:
    """The examples of one look: all lines of which something was needed, and a share of the others."""
    share = sampling.arrival_share if look.moment is Moment.ARRIVAL else sampling.epoch_share
    is_positive = (look.num_words > 0) | (look.num_lines > 0)
    taken = is_positive | (np.array([draw.random() for _ in range(len(is_positive))]) < share)
    weights = np.where(is_positive, 1.0, 1.0 / share).astype(np.float32)
    return Examples(
        look.table.features[taken],
        look.num_words[taken],
        look.num_lines[taken],
        weights[taken],
        look.table.is_line_fact[taken],
        look.table.has_word_fact[taken],
        look.places[taken],
    )


def balanced(sources: Sequence[Source]) -> list[Source]:
    """The same examples, weighted so that an agent with four times as many of them counts twice as much."""
    num_lines: dict[str, float] = {}
    for source in sources:
        num_lines[source.agent] = num_lines.get(source.agent, 0.0) + float(source.examples.weights.sum())
    average = sum(num_lines.values()) / max(len(num_lines), 1)
    return [
        replace(source, examples=replace(source.examples, weights=source.examples.weights * scale))
        for source in sources
        for scale in (np.float32((average / max(num_lines[source.agent], 1.0)) ** 0.5),)
    ]


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Several conversations' examples as one."""
    if not parts:
        parts = [_empty()]
    return Examples(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in (field.name for field in fields(Examples))
        )
    )


def _chains(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """The turns between two compactions."""
    chain: list[Turn] = []
    for turn in turns:
        if turn.begins_request and chain:
            yield chain
            chain = []
        chain.append(turn)
    if chain:
        yield chain


def _of_chain(
    trace: Trace, chain: Sequence[Turn], needs: Sequence[_Need], sampling: Sampling, draw: random.Random
) -> Iterator[Look]:
    files, origins, reader = FileHistory(), Origins(), FeatureReader()
    evidence = Evidence(files)
    index_at, first_lines_at = [-1], [[0]]
    by_answer = {turn.answer for turn in chain}
    needs = [need for need in needs if need.answer in by_answer]
    epochs = _epochs(trace, chain, sampling, draw)
    done = 0
    for turn in chain:
        for index in turn.history[done:]:
            raw = trace.messages[index].raw
            message = OPENAI_CHAT.parse(raw)
            segments = origins.segments(message)
            called = origins.add(message)
            for provenance in called:
                files.add(provenance, evidence.num_messages + 1)
            evidence.add(message, segments, called)
            index_at.append(index)
            first_lines_at.append(_first_lines(trace, index))
            if segments:
                new = evidence.segments[-len(segments) :]
                yield _look(evidence, new, Moment.ARRIVAL, reader, needs, index_at, first_lines_at)
        done = len(turn.history)
        if turn.answer in epochs:
            old = [found for found in evidence.segments if evidence.num_results - found.num_results_before > NUM_EXEMPT]
            if old:
                yield _look(evidence, old, Moment.EPOCH, reader, needs, index_at, first_lines_at)


def _first_lines(trace: Trace, index: int) -> list[int]:
    """Of each text of a message, which of the lines of all that the message shows is the text's first.

    Facts count a message's lines with its parts joined by line breaks, those without a text among them.
    """
    content = json.loads(trace.messages[index].raw).get("content")
    found, first = [], 0
    for part in content if isinstance(content, list) else [{"type": "text", "text": content or ""}]:
        if part.get("type") == "text" and "text" in part:
            found.append(first)
        first += part.get("text", "").count("\n") + 1
    return found


def _epochs(trace: Trace, chain: Sequence[Turn], sampling: Sampling, draw: random.Random) -> set[int]:
    """The answers before which an epoch is sampled: half of them right after a user message, where there are any."""
    after_user: list[int] = []
    others: list[int] = []
    for turn in chain:
        num_results = sum(index in trace.results for index in turn.history)
        newest = turn.history[-1]
        if num_results < MIN_RESULTS:
            continue
        if trace.messages[newest].role == "user" and newest not in trace.results:
            after_user.append(turn.answer)
        elif num_results % EPOCH_EVERY == 0:
            others.append(turn.answer)
    draw.shuffle(after_user)
    draw.shuffle(others)
    half = after_user[: (sampling.max_epochs + 1) // 2]
    return {*half, *others[: sampling.max_epochs - len(half)]}


def _look(
    evidence: Evidence,
    segments: Sequence[SegmentEvidence],
    moment: Moment,
    reader: FeatureReader,
    needs: Sequence[_Need],
    index_at: Sequence[int],
    first_lines_at: Sequence[Sequence[int]],
) -> Look:
    table = reader.read(evidence, segments, moment)
    num_words, num_lines = (np.zeros(len(table.features), dtype=np.float32) for _ in range(2))
    newest = index_at[-1]
    # By message: the first line of each of its texts among all its lines, its row, and how many there are.
    begins: dict[int, list[tuple[int, int, int]]] = {}
    for segment, bound in zip(segments, table.bounds, strict=False):
        first = first_lines_at[segment.position][segment.index]
        begins.setdefault(index_at[segment.position], []).append((first, bound, len(segment.lines)))
    oldest = min(begins) if moment is Moment.ARRIVAL else -1
    for need in needs:
        # Where the need lies before the moment, or something shows the fact again in between, nothing is lost.
        if need.answer <= newest or need.spots[-1][0] > newest or need.spots[0][0] < oldest:
            continue
        index, number = need.spots[0 if moment is Moment.ARRIVAL else -1]
        for first, begin, size in begins.get(index, ()):
            if first <= number < first + size:
                (num_words if need.is_word else num_lines)[begin + number - first] += 1
    np.minimum(num_lines, 1, out=num_lines)
    messages = [index_at[segment.position] for segment in segments]
    return Look(evidence, segments, messages, moment, table, num_words, num_lines)


def _empty() -> Examples:
    none = np.zeros(0, dtype=np.float32)
    return Examples(
        np.zeros((0, len(FEATURES)), dtype=np.float32),
        none,
        none,
        none,
        np.zeros(0, dtype=bool),
        np.zeros(0, dtype=bool),
        np.zeros((0, 3), dtype=np.int32),
    )
