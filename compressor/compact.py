"""Shortens a text or a list of messages once, on demand: nothing is frozen, nothing is known of earlier calls.

The same decisions as for a conversation: repeats go, then, where a scorer weighs lines, what is worth least, lines
that bear on a query being worth more. What stays is verbatim; `<keepContext>…</keepContext>` is never touched. Knows
no wire.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sluice.compressor import ledger, markers
from sluice.compressor.conversation import Conversation
from sluice.compressor.economics import CHARS_PER_TOKEN
from sluice.compressor.ledger import RECORD_VERSION, Omitted, Rendition
from sluice.compressor.line_judge import MARKER_TOKENS
from sluice.compressor.lines import join, split
from sluice.compressor.planner import Omission, plan
from sluice.compressor.relevance import relevance
from sluice.compressor.renderer import render
from sluice.compressor.scoring import ModelFileError, Moment, Scorer, best_spans, load_default
from sluice.compressor.settings import POLICY_VERSION, CompressorSettings
from sluice.compressor.types import Message, Text

logger = logging.getLogger(__name__)

_PIECE_LINES = 80
"""A text is looked at in pieces of this many lines, so that a later one may repeat an earlier one."""
_QUERY_WEIGHT = 0.5
"""What a line that holds every word of the query is worth beside what it is worth anyway, in facts."""
_PRICES = (1e-7, 10.0)
"""Between these the price of a token is sought at which a ratio is met."""
_NUM_HALVINGS = 10
"""Of eight powers of ten: to within two percent of the price."""
_NO_IDENTITY = b"\0" * 16

Range = tuple[int, int]
"""First and last line of a text, from 1."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """A text, shortened."""

    text: str
    """Its kept lines, and a marker for each range that is not there, where markers were asked for."""
    compacted: tuple[Range, ...] = ()
    """The lines that were dropped, as they are numbered in the original."""
    kept: tuple[Range, ...] = ()
    """The lines that stay."""


def compact_text(
    text: str,
    *,
    query: str = "",
    ratio: float | None = None,
    include_markers: bool = True,
    scorer: Scorer | None = None,
    settings: CompressorSettings | None = None,
) -> Compacted:
    """Shorten a text.

    Args:
        text: any text of lines.
        query: what it is wanted for; lines that bear on it are worth more.
        ratio: share of the tokens to keep, in (0, 1]; None drops what is not worth its tokens. Needs a scorer.
        include_markers: put a marker where lines were dropped.
        scorer: weighs lines; None drops only what the text repeats.
        settings: see `CompressorSettings`.
    """
    settings = settings or CompressorSettings()
    lines = split(text)
    recall_id = ledger.recall_id(_NO_IDENTITY, 0)
    pieces = list(_pieces(lines.texts))
    texts = [(join(list(lines.texts[start:stop]), ends_with_newline=False),) for start, stop in pieces]
    messages = [_result(*piece) for piece in texts]
    found = _omissions(messages, range(len(messages)), query, ratio, scorer, settings)
    ranges: list[list[int]] = []
    for (start, _), omissions in zip(pieces, found, strict=True):
        for omission in omissions.get(0, ()):
            first, stop = start + omission.start, start + omission.stop
            if ranges and ranges[-1][1] == first:
                ranges[-1][1] = stop
            else:
                ranges.append([first, stop])
    merged = [
        Omission(
            first,
            stop,
            ledger.Reason.NOT_NEEDED,
            markers.omitted(
                recall_id, stop - first, lines.numbers[first] or first + 1, lines.numbers[stop - 1] or stop
            ),
        )
        for first, stop in ranges
    ]
    return _compacted(text, merged, include_markers)


def compact_messages(
    messages: Sequence[Message],
    *,
    query: str = "",
    ratio: float | None = None,
    preserve_recent: int = 2,
    include_markers: bool = True,
    scorer: Scorer | None = None,
    settings: CompressorSettings | None = None,
) -> list[Mapping[int, Compacted]]:
    """Shorten the tool results among messages; what people and the model said stays as it is.

    Args:
        messages: of a conversation, in order.
        query: what they are wanted for.
        ratio: share of the results' tokens to keep, in (0, 1]; None drops what is not worth its tokens.
        preserve_recent: so many of the newest messages stay whole.
        include_markers: put a marker where lines were dropped.
        scorer: weighs lines; None drops only what other messages show.
        settings: see `CompressorSettings`.

    Returns:
        For each message its shortened texts, by index in `Message.texts`.
    """
    settings = settings or CompressorSettings()
    old = range(max(0, len(messages) - preserve_recent))
    found = _omissions(messages, old, query, ratio, scorer, settings)
    return [
        {
            index: _compacted(message.texts[index].text, omissions, include_markers)
            for index, omissions in by_text.items()
            if omissions
        }
        for message, by_text in zip(messages, found, strict=True)
    ]


@functools.cache
def shipped_scorer() -> Scorer | None:
    """The shipped scorer, loaded once in a process; None, which is logged, where it cannot be loaded.

    Features alone, also where a network scores conversations: it reads what was said before a result, which a text by
    itself does not have; whoever shortens a long one would take the agents' place in its queue; and as nothing is
    frozen here, the same text would come back otherwise whenever the network is busier, as its deadline bounds what
    it scores.
    """
    try:
        return load_default()
    except (ImportError, ModelFileError) as error:
        logger.error("no scorer, so that only repeats are dropped: %s", error)
        return None


def whole(text: str) -> Compacted:
    """A text that stays as it is."""
    return _compacted(text, (), include_markers=True)


def _omissions(
    messages: Sequence[Message],
    old: Collection[int],
    query: str,
    ratio: float | None,
    scorer: Scorer | None,
    settings: CompressorSettings,
) -> list[dict[int, Sequence[Omission]]]:
    """What of each message is dropped, by index of the text."""
    keeps = _judged(messages, old, query, ratio, scorer, settings) if scorer is not None else {}
    conversation = Conversation(settings.min_run_lines)
    found: list[dict[int, Sequence[Omission]]] = []
    for index, message in enumerate(messages):
        incoming = conversation.receive(message)
        texts = [text.text for text in message.texts]
        omissions: dict[int, Sequence[Omission]] = {}
        for segment in incoming.segments if index in old else ():
            lines = split(segment.text)
            omissions[segment.index] = plan(
                lines,
                segment.provenance,
                ledger.recall_id(message.identity, segment.index),
                conversation.visible,
                conversation.is_current,
                keeps.get(index, {}).get(segment.index),
                settings,
            )
            texts[segment.index] = render(lines, omissions[segment.index])
        ranges = [Omitted(i, o.start, o.stop, o.reason) for i, dropped in omissions.items() for o in dropped]
        conversation.forward(incoming, texts, Rendition(RECORD_VERSION, POLICY_VERSION, omitted=tuple(ranges)))
        found.append(omissions)
    return found


def _judged(
    messages: Sequence[Message],
    old: Collection[int],
    query: str,
    ratio: float | None,
    scorer: Scorer,
    settings: CompressorSettings,
) -> Mapping[int, Mapping[int, Sequence[bool]]]:
    """Which lines are worth their tokens, for each message by index of the text; seen from the end of it all."""
    conversation = Conversation(settings.min_run_lines, with_evidence=True)
    for message in messages:
        incoming = conversation.receive(message)
        texts = [text.text for text in message.texts]
        conversation.forward(incoming, texts, Rendition(RECORD_VERSION, POLICY_VERSION))
    evidence = conversation.evidence
    assert evidence is not None
    segments = [segment for segment in evidence.segments if segment.position - 1 in old]
    asked = relevance([segment.lines.texts for segment in segments], query)
    losses = [
        [loss + _QUERY_WEIGHT * weight for loss, weight in zip(scored, weights, strict=True)]
        for scored, weights in zip(scorer.score(evidence, segments, Moment.EPOCH), asked, strict=True)
    ]
    num_tokens = [[(len(text) + 1) / CHARS_PER_TOKEN for text in segment.lines.texts] for segment in segments]

    def ranges_at(price: float) -> list[list[tuple[int, int]]]:
        return [
            best_spans(
                losses[i], num_tokens[i], price=price, marker_tokens=MARKER_TOKENS, min_lines=settings.min_dead_lines
            )
            for i in range(len(segments))
        ]

    def num_kept(ranges: Sequence[Sequence[tuple[int, int]]]) -> float:
        dropped = sum(sum(num_tokens[i][a:b]) - MARKER_TOKENS for i, spans in enumerate(ranges) for a, b in spans)
        return sum(map(sum, num_tokens)) - dropped

    ranges = ranges_at(settings.balanced.epoch)
    if ratio is not None:
        to_keep, low, high = ratio * sum(map(sum, num_tokens)), *_PRICES
        ranges = ranges_at(high)
        for _ in range(_NUM_HALVINGS):
            tried = ranges_at(price := math.sqrt(low * high))
            if num_kept(tried) <= to_keep:
                ranges, high = tried, price
            else:
                low = price
    keeps: dict[int, dict[int, Sequence[bool]]] = {}
    for segment, spans in zip(segments, ranges, strict=True):
        keep = [True] * len(segment.lines)
        for start, stop in spans:
            keep[start:stop] = [False] * (stop - start)
        keeps.setdefault(segment.position - 1, {})[segment.index] = keep
    return keeps


def _compacted(text: str, omissions: Sequence[Omission], include_markers: bool) -> Compacted:
    lines = split(text)
    dropped = [(omission.start + 1, omission.stop) for omission in omissions]
    kept: list[Range] = []
    done = 0
    for omission in omissions:
        if omission.start > done:
            kept.append((done + 1, omission.start))
        done = omission.stop
    if done < len(lines):
        kept.append((done + 1, len(lines)))
    if include_markers:
        short = render(lines, omissions)
    else:
        texts = [line for first, last in kept for line in lines.texts[first - 1 : last]]
        short = join(texts, ends_with_newline=lines.ends_with_newline and bool(texts))
    return Compacted(short, tuple(dropped), tuple(kept))


def _pieces(texts: Sequence[str]) -> Iterator[Range]:
    """Where a text is cut into pieces: at an empty line where one is near, never within what is to be kept."""
    start, is_kept = 0, False
    for index, text in enumerate(texts):
        if "<keepContext>" in text:
            is_kept = True
        if "</keepContext>" in text:
            is_kept = False
        length = index + 1 - start
        if not is_kept and (length >= _PIECE_LINES or (length >= _PIECE_LINES // 2 and not text.strip())):
            yield start, index + 1
            start = index + 1
    if start < len(texts):
        yield start, len(texts)


def _result(text: str) -> Message:
    return Message("tool", (Text(text, is_result=True),), (), _NO_IDENTITY, len(text))
