"""Compresses each message for itself, where none may lean on another: the upstream edits the history out of our sight.

Each tool result is a conversation of one, so that what is decided depends on it alone and is frozen as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sluice.compressor import Compressed, Dialect, MalformedMessageError, Mode


async def compress_apart(
    messages: Sequence[bytes],
    dialect: Dialect,
    mode: Mode,
    compress: Callable[[Sequence[bytes]], Awaitable[Compressed]],
) -> Compressed:
    """Compress messages so that no marker refers to another message.

    Args:
        messages: JSON of each.
        dialect: of the messages.
        mode: that is asked for.
        compress: compresses a list of messages.
    """
    indexes = [index for index, message in enumerate(messages) if _is_result(message, dialect)]
    alone = await asyncio.gather(*(compress([messages[index]]) for index in indexes))
    forwarded = list(messages)
    for index, compressed in zip(indexes, alone, strict=True):
        forwarded[index] = compressed.messages[0]
    return Compressed(
        forwarded,
        mode,
        bypass=next((one.bypass for one in alone if one.bypass is not None), None),
        num_new=sum(one.num_new for one in alone),
        num_markers=sum(one.num_markers for one in alone),
        num_lines_omitted=sum(one.num_lines_omitted for one in alone),
        num_chars_in=sum(one.num_chars_in for one in alone),
        num_chars_out=sum(one.num_chars_out for one in alone),
        originals={key: text for one in alone for key, text in one.originals.items()},
    )


def _is_result(message: bytes, dialect: Dialect) -> bool:
    try:
        return any(text.is_result for text in dialect.parse(message).texts)
    except MalformedMessageError:
        return False
