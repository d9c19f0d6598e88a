"""Batch inputs on their way up: each line's body is compressed for itself.

The lines of a batch are requests that nobody follows up, so that nothing is frozen, and nothing of one line is known
to another. Whatever is not as it should be goes up as it came.
"""

from __future__ import annotations

import asyncio
import re
from email.message import Message

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from sluice.compressor import Compressor, CompressorSettings, MemoryStore, Mode
from sluice.compressor.profiles import Profile
from sluice.proxy.body import Shape, parse_body
from sluice.proxy.errors import RequestError
from sluice.proxy.log import fields, logger, where
from sluice.proxy.wire.wires import WIRES

_LINE = Shape(None)
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
    if mode is Mode.OFF:
        return body
    try:
        span = batch_file(body, content_type)
        if span is None:
            return body
        start, end = span
        # A worker with an event loop of its own: hours of requests may be in one file.
        lines = await asyncio.to_thread(asyncio.run, _compress_lines(body[start:end], mode, profile))
    except Exception as error:  # a batch is never refused for what we failed to do
        logger.error(fields("batch_not_compressed", error=where(error)))
        return body
    return body[:start] + lines + body[end:]


def batch_file(body: bytes, content_type: str) -> tuple[int, int] | None:
    """Where in a form the file of a batch lies; None where it is no such form.

    Args:
        body: the form.
        content_type: its type, with its boundary.
    """
    boundary = _parameter(content_type, "boundary")
    if boundary is None or not content_type.lower().startswith("multipart/form-data"):
        return None
    parts: list[_Part] = []
    parser = MultipartParser(
        boundary.encode("latin-1"),
        {
            "on_part_begin": lambda: parts.append(_Part()),
            "on_part_data": lambda data, start, end: parts[-1].add(start, end),
            "on_header_field": lambda data, start, end: parts[-1].fields.append(data[start:end]),
            "on_header_value": lambda data, start, end: parts[-1].values.append(data[start:end]),
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError:
        return None
    named = {part.name: part for part in parts}
    purpose, file = named.get("purpose"), named.get("file")
    if purpose is None or file is None or body[purpose.start : purpose.end].strip() != b"batch":
        return None
    return file.start, file.end


class _Part:
    """One part of a form."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self.fields: list[bytes] = []
        self.values: list[bytes] = []

    def add(self, start: int, end: int) -> None:
        """Note where a piece of its data lies."""
        self.start = self.start or start
        self.end = end

    @property
    def name(self) -> str | None:
        for field, value in zip(self.fields, self.values, strict=False):
            if field.lower() == b"content-disposition":
                return _parameter(value.decode("latin-1"), "name")
        return None


def _parameter(header: str, name: str) -> str | None:
    message = Message()
    message["content-type"] = header
    value = message.get_param(name)
    return value if isinstance(value, str) else None


async def _compress_lines(data: bytes, mode: Mode, profile: Profile) -> bytes:
    parts: list[bytes] = []
    done = 0
    compressor = Compressor(MemoryStore(), CompressorSettings(max_conversations=0), profile=profile)
    for number, end in enumerate([*(match.start() for match in _NEWLINE.finditer(data)), len(data)]):
        start = end - len(data[done:end].lstrip())
        parts += (data[done:start], await _compress_line(data[start:end], compressor, mode, number))
        done = end
    return b"".join(parts)


async def _compress_line(line: bytes, compressor: Compressor, mode: Mode, number: int) -> bytes:
    try:
        request = parse_body(line, _LINE)
        wire = _BY_PATH.get(msgspec.json.decode(request.field("url") or b'""', type=str))
        if wire is None or wire.dialect is None or request.spans is None:
            return line
        body = wire.parse(request.field("body"))
    except (RequestError, msgspec.DecodeError):
        return line
    if body.spans is None or wire.edits_history(body):
        return line
    # Each line is a tenant of its own, so that no line is decided by what another was.
    compressed = await compressor.compress(
        body.messages, dialect=wire.dialect, mode=mode, tenant=b"line %d" % number, upstream="", context=b""
    )
    return request.splice([], {"body": body.splice(compressed.messages)})
