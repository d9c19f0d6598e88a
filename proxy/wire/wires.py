"""The wires that are understood."""

from __future__ import annotations

from sluice.compressor import OPENAI_CHAT
from sluice.proxy.body import Shape
from sluice.proxy.errors import error_json
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.render_errors import chat_event
from sluice.proxy.wire.types import WireName

CHAT = Wire(
    WireName.CHAT,
    "/v1/chat/completions",
    Shape("messages", required=frozenset({"model", "messages"})),
    OPENAI_CHAT,
    context_fields=("tools",),
    render_error=error_json,
    render_event=chat_event,
)

COMPLETIONS = Wire(
    WireName.COMPLETIONS,
    "/v1/completions",
    Shape(None, required=frozenset({"model"})),
    None,
    context_fields=(),
    render_error=error_json,
    render_event=chat_event,
)

WIRES = {wire.name: wire for wire in (CHAT, COMPLETIONS)}
"""Each by its name."""
