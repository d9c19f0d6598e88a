"""Where in a multipart form the input of a batch lies. Nothing is taken apart that does not have to be."""

from __future__ import annotations

from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser


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
