"""Messages or a text, shortened once, on demand: the function behind `POST /v1/compact`, for use in a program.

Nothing is remembered between calls. An agent that sends a growing history wants `History`, which keeps what it sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from sluice.compressor.compact import compact_messages, compact_text, shipped_scorer
from sluice.compressor.dialects import OPENAI_CHAT, Dialect
from sluice.compressor.dialects.json_message import decode, encode
from sluice.compressor.middleware.history import Json
from sluice.compressor.turn import parse


@overload
def compact(messages: str, query: str = "", *, ratio: float | None = None) -> str: ...


@overload
def compact(
    messages: Sequence[Json],
    query: str = "",
    *,
    ratio: float | None = None,
    preserve_recent: int = 2,
    dialect: Dialect = OPENAI_CHAT,
) -> list[Json]: ...


def compact(
    messages: str | Sequence[Json],
    query: str = "",
    *,
    ratio: float | None = None,
    preserve_recent: int = 2,
    dialect: Dialect = OPENAI_CHAT,
) -> str | list[Json]:
    """Shorten messages, or one text; what stays is verbatim, and a marker stands where lines were dropped.

    Takes some 25 µs a line. What cannot be read as a message of the dialect comes back as it is.

    Args:
        messages: of a conversation, in order, or a text.
        query: what they are wanted for; lines that bear on it are worth more.
        ratio: share of the tokens to keep, in (0, 1]; None drops what is not worth its tokens.
        preserve_recent: so many of the newest messages stay whole.
        dialect: of the messages.

    Returns:
        The same kind: a text, or for each message itself or a shorter one.

    Raises:
        ValueError: the ratio is out of range.
    """
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, not {ratio!r}")
    scorer = shipped_scorer()
    if isinstance(messages, str):
        return compact_text(messages, query=query, ratio=ratio, scorer=scorer).text
    raws = [encode(message) for message in messages]
    parsed = [parse(raw, dialect) for raw in raws]
    shortened = compact_messages(parsed, query=query, ratio=ratio, preserve_recent=preserve_recent, scorer=scorer)
    return [
        decode(dialect.carry(raw, dialect.render(raw, {index: done.text for index, done in texts.items()})))
        if texts
        else message
        for message, raw, texts in zip(messages, raws, shortened, strict=True)
    ]
