"""Where an Anthropic request lets the cache be written and read: its `cache_control` marks. Knows no prices.

At most four marks count; each is looked up in the cache, and from it up to 20 blocks back, for a prefix that was
written at an earlier request's mark (Anthropic, "Prompt caching").
"""

from __future__ import annotations

import msgspec

from sluice.backend.surrogates import decode_whole

LOOKBACK_BLOCKS = 20
MAX_BREAKPOINTS = 4
_TTL_S = {"5m": 300.0, "1h": 3_600.0}


class Breakpoints(msgspec.Struct, frozen=True):
    """The marks of one request, in the order in which the model reads: tools, system, messages."""

    ends: tuple[int, ...] = ()
    """Blocks up to each mark, the marked one included."""
    shares: tuple[float, ...] = ()
    """Share of the request's bytes that stands up to each mark."""
    ttl_s: float = _TTL_S["5m"]
    """Life of what is written at the last mark, in seconds."""


class _Control(msgspec.Struct):
    ttl: str = "5m"


class _Part(msgspec.Struct):
    cache_control: _Control | None = None


class _Marked(msgspec.Struct):
    cache_control: _Control | None = None
    content: msgspec.Raw = msgspec.Raw(b"null")
    """Of a tool's result, whose parts may be marked in its place."""


class _Message(msgspec.Struct):
    content: str | list[msgspec.Raw] = ""


class _Request(msgspec.Struct):
    tools: list[msgspec.Raw] = []
    system: str | list[msgspec.Raw] = ""
    messages: list[_Message] = []
    cache_control: _Control | None = None
    """On the request itself: the last block is marked."""


_request_decoder = msgspec.json.Decoder(_Request)
_block_decoder = msgspec.json.Decoder(_Marked)
_parts_decoder = msgspec.json.Decoder(list[_Part])


def breakpoints_of(body: bytes) -> Breakpoints | None:
    """Find the marks of a Messages request; None where it cannot be read."""
    try:
        request = decode_whole(_request_decoder.decode, body)
        blocks: list[msgspec.Raw | str] = [*request.tools]
        for content in (request.system, *(message.content for message in request.messages)):
            blocks += ([content] if content else []) if isinstance(content, str) else content
        sizes = [len(block.encode(errors="replace") if isinstance(block, str) else block) for block in blocks]
        marks = [
            (index, control)
            for index, block in enumerate(blocks)
            if not isinstance(block, str) and b'"cache_control"' in bytes(block)
            if (control := _control(block)) is not None
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if request.cache_control is not None and blocks:
        marks = [mark for mark in marks if mark[0] != len(blocks) - 1] + [(len(blocks) - 1, request.cache_control)]
    marks = marks[-MAX_BREAKPOINTS:]
    if not marks:
        return Breakpoints()
    total = sum(sizes) or 1
    return Breakpoints(
        ends=tuple(index + 1 for index, _ in marks),
        shares=tuple(sum(sizes[: index + 1]) / total for index, _ in marks),
        ttl_s=_TTL_S.get(marks[-1][1].ttl, _TTL_S["5m"]),
    )


def _control(block: msgspec.Raw) -> _Control | None:
    marked = _block_decoder.decode(block)
    if marked.cache_control is not None or not bytes(marked.content).startswith(b"["):
        return marked.cache_control
    controls = [part.cache_control for part in _parts_decoder.decode(marked.content) if part.cache_control is not None]
    return controls[-1] if controls else None


def readable_share(before: Breakpoints, now: Breakpoints) -> float:
    """Share of an earlier request that a later one, which extends it, can read from the cache: from 0 to 1."""
    shares = [
        share
        for written, share in zip(before.ends, before.shares, strict=True)
        if any(written <= end < written + LOOKBACK_BLOCKS for end in now.ends)
    ]
    return max(shares, default=0.0)
