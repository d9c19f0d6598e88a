"""Shapes that routes, upstreams, translation and the meter share. Imports nothing of ours but the header type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sluice.proxy.headers import Header


class WireName(StrEnum):
    """A wire format that is understood; what is not is passed through raw."""

    CHAT = "chat"
    """OpenAI's `/v1/chat/completions`."""
    COMPLETIONS = "completions"
    """OpenAI's legacy `/v1/completions`."""
    RESPONSES = "responses"
    """OpenAI's `/v1/responses`."""
    MESSAGES = "messages"
    """Anthropic's `/v1/messages`."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request, ready to be sent to an upstream."""

    method: str
    """HTTP method."""
    path: str
    """Path and query, from `/v1` on, quoted as the client quoted it."""
    headers: Sequence[Header]
    """End-to-end headers, the client's credential among them; `Host` and `Content-Length` are added on sending."""
    body: bytes = b""
    """May be empty."""
    wire: WireName | None = None
    """The format of `body`; None where it is not understood, so that it can only be sent as it is."""
    model: str = ""
    """The model asked for; empty where the request names none."""
    stream: bool = False
    """Whether the client asked for a stream of events."""
