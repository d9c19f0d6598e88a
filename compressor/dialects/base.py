"""What a dialect adapter does: one message of a wire format in, the neutral `Message` out, and back.

The only place where the compressor meets a wire format's field names. An adapter sees one message at a time; what
lies around them (the model, the tools, streaming) is the proxy's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sluice.compressor.types import Message


class Dialect(Protocol):
    """Reads and writes the messages of one wire format."""

    name: str
    """As in a route's name, e.g. `openai-chat`."""

    def parse(self, raw: bytes) -> Message:
        """Read one message.

        Raises:
            MalformedMessageError: it is not of this dialect's form.
        """
        ...

    def render(self, raw: bytes, texts: Mapping[int, str]) -> bytes:
        """Write the message with some of its texts (by index in `Message.texts`) replaced, less `cache_control`."""
        ...

    def carry(self, raw: bytes, rendition: bytes) -> bytes:
        """Put the `cache_control` that the client's message carries now onto a rendition of the same message."""
        ...
