"""Compresses each message for itself, where none may lean on another: the upstream edits the history out of our sight.

Each tool result is a conversation of one, so that what is decided depends on it alone and is frozen as ever. What was
decided before is looked up for all of them at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sluice.compressor import Compressed, Compressor, Dialect, MalformedMessageError, Message, Mode
from sluice.compressor.ledger import Rendition


async def compress_apart(
    messages: Sequence[bytes],
    dialect: Dialect,
    mode: Mode,
    *,
    compressor: Compressor,
    tenant: bytes,
    upstream: str,
    compress: Callable[[Sequence[bytes]], Awaitable[Compressed]],
) -> Compressed:
    """Compress messages so that no marker refers to another message.

    Args:
        messages: JSON of each.
        dialect: of the messages.
        mode: that is asked for.
        compressor: knows what was decided before.
        tenant: see `Compressor.compress`.
        upstream: see `Compressor.compress`.
        compress: compresses a list of messages with it.
    """
    results = _results(messages, dialect)
    indexes = list(results)
    known = await compressor.known_alone(
        [messages[index] for index in indexes], dialect=dialect, tenant=tenant, upstream=upstream
    )
    new = [index for index, rendition in zip(indexes, known, strict=True) if rendition is None]
    alone = await asyncio.gather(*(compress([messages[index]]) for index in new))
    forwarded = list(messages)
    for index, compressed in zip(new, alone, strict=True):
        forwarded[index] = compressed.messages[0]
    replayed: list[Rendition] = []
    for index, rendition in zip(indexes, known, strict=True):
        if rendition is not None:
            replayed.append(rendition)
            if rendition.body is not None:
                forwarded[index] = dialect.carry(messages[index], rendition.body)
    num_chars = sum(message.num_chars for message in results.values())
    return Compressed(
        forwarded,
        mode,
        bypass=next((one.bypass for one in alone if one.bypass is not None), None),
        num_new=sum(one.num_new for one in alone),
        num_markers=sum(one.num_markers for one in alone) + sum(one.num_markers for one in replayed),
        num_lines_omitted=sum(one.num_lines_omitted for one in alone) + sum(one.num_lines_omitted for one in replayed),
        num_chars_in=num_chars,
        num_chars_out=num_chars
        - sum(one.num_chars_in - one.num_chars_out for one in alone)
        - sum(one.num_chars_saved for one in replayed),
        originals={key: text for one in alone for key, text in one.originals.items()},
    )


def _results(messages: Sequence[bytes], dialect: Dialect) -> Mapping[int, Message]:
    """Those of the messages that hold tool results, by index."""
    found: dict[int, Message] = {}
    for index, raw in enumerate(messages):
        try:
            message = dialect.parse(raw)
        except MalformedMessageError:
            continue
        if any(text.is_result for text in message.texts):
            found[index] = message
    return found
