"""Batches on their way up: each request in them is compressed for itself.

OpenAI's come as a file of lines, Anthropic's as one body with a list. Their requests are followed up by nobody, so that
nothing is frozen, and nothing of one is known to another. Whatever is not as it should be goes up as it came.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from sluice.compressor import Compressor, CompressorSettings, MemoryStore, Mode
from sluice.compressor.profiles import Profile
from sluice.proxy.body import Body, Shape, parse_body
from sluice.proxy.errors import RequestError
from sluice.proxy.forms import batch_file
from sluice.proxy.log import fields, logger, where
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.wires import MESSAGES, WIRES

_ENTRY = Shape(None)
_MESSAGE_BATCH = Shape("requests", required=frozenset({"requests"}))
_BY_PATH = {wire.path: wire for wire in WIRES.values()}
_NEWLINE = re.compile(rb"\r?\n")


async def compress_upload(body: bytes, content_type: str, mode: Mode, profile: Profile) -> bytes:
    """Compress the lines of an uploaded batch input; anything else comes back as it is.

    Args:
        body: of `POST /v1/files`.
        content_type: of the request, with its boundary.
        mode: in which to compress.
        profile: what the provider's cache costs.
    """

    async def compress(compressor: Compressor) -> bytes:
        span = batch_file(body, content_type)
        if span is None:
            return body
        start, end = span
        return body[:start] + await _compress_lines(body[start:end], compressor, mode) + body[end:]

    return await _aside(compress, body, mode, profile)


async def compress_message_batch(body: bytes, mode: Mode, profile: Profile) -> bytes:
    """Compress the requests of an Anthropic batch; anything else comes back as it is.

    Args:
        body: of `POST /v1/messages/batches`.
        mode: in which to compress.
        profile: what the provider's cache costs.
    """

    async def compress(compressor: Compressor) -> bytes:
        try:
            batch = parse_body(body, _MESSAGE_BATCH)
        except RequestError:
            return body
        if batch.spans is None:
            return body
        return batch.splice(
            [
                await _compress_entry(entry, "params", lambda _: MESSAGES, compressor, mode, number)
                for number, entry in enumerate(batch.messages)
            ]
        )

    return await _aside(compress, body, mode, profile)


def model_of_batch(body: bytes) -> str:
    """The model of an Anthropic batch's first request, by which the upstream is chosen; empty where none is named."""
    try:
        requests = msgspec.json.decode(body, type=_Batch).requests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return next((entry.params.model for entry in requests if entry.params.model), "")


def requests_of(body: bytes, content_type: str) -> list[tuple[Wire, Body]]:
    """The requests in a batch and their formats, those that are as they should be.

    Args:
        body: of `POST /v1/files` or `POST /v1/messages/batches`; of an upload that is no batch there are none.
        content_type: of the request.
    """
    if span := batch_file(body, content_type):
        lines = _NEWLINE.split(body[span[0] : span[1]])
        found = [_read_entry(line, "body", _wire_of) for line in lines]
    else:
        try:
            entries = parse_body(body, _MESSAGE_BATCH).messages
        except RequestError:
            return []
        found = [_read_entry(entry, "params", lambda _: MESSAGES) for entry in entries]
    return [(wire, request) for _, wire, request in filter(None, found)]


class _Params(msgspec.Struct, frozen=True):
    model: str = ""


class _Entry(msgspec.Struct):
    params: _Params = _Params()


class _Batch(msgspec.Struct):
    requests: list[_Entry] = []


async def _aside(
    compress: Callable[[Compressor], Coroutine[Any, Any, bytes]], body: bytes, mode: Mode, profile: Profile
) -> bytes:
    """Run something in a worker with an event loop of its own: hours of requests may be in one batch."""
    if mode is Mode.OFF:
        return body
    try:
        compressor = Compressor(
            MemoryStore(), CompressorSettings(max_conversation_bytes=0, max_trail_bytes=0), profile=profile
        )
        return await asyncio.to_thread(asyncio.run, compress(compressor))
    except Exception as error:  # a batch is never refused for what we failed to do
        logger.error(fields("batch_not_compressed", error=where(error)))
        return body


async def _compress_lines(data: bytes, compressor: Compressor, mode: Mode) -> bytes:
    parts: list[bytes] = []
    done = 0
    for number, end in enumerate([*(match.start() for match in _NEWLINE.finditer(data)), len(data)]):
        start = end - len(data[done:end].lstrip())
        parts += (data[done:start], await _compress_entry(data[start:end], "body", _wire_of, compressor, mode, number))
        done = end
    return b"".join(parts)


def _wire_of(url: bytes) -> Wire | None:
    return _BY_PATH.get(msgspec.json.decode(url or b'""', type=str))


def _read_entry(entry: bytes, field: str, wire_of: Callable[[bytes], Wire | None]) -> tuple[Body, Wire, Body] | None:
    """An entry, the format of the request in a field of it, and that request; None where it is not as it should be."""
    try:
        request = parse_body(entry, _ENTRY)
        wire = wire_of(request.field("url"))
        if wire is None or request.spans is None:
            return None
        return request, wire, wire.parse(request.field(field))
    except (RequestError, msgspec.DecodeError):
        return None


async def _compress_entry(
    entry: bytes,
    field: str,
    wire_of: Callable[[bytes], Wire | None],
    compressor: Compressor,
    mode: Mode,
    number: int,
) -> bytes:
    """Compress one request, which stands in a field of an entry; an entry that is not as it should be stays."""
    found = _read_entry(entry, field, wire_of)
    if found is None:
        return entry
    request, wire, body = found
    if wire.dialect is None or body.spans is None or wire.edits_history(body):
        return entry
    # Each is a tenant of its own, so that none is decided by what another was.
    compressed = await compressor.compress(
        body.messages, dialect=wire.dialect, mode=mode, tenant=b"entry %d" % number, upstream="", context=b""
    )
    return request.splice([], {field: body.splice(compressed.messages)})
