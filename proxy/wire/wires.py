"""The wires that are understood."""

from __future__ import annotations

from sluice.compressor import ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES
from sluice.proxy.body import Body, Shape
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.render_errors import anthropic_error, anthropic_event, chat_event, openai_error, responses_event
from sluice.proxy.wire.types import WireName
from sluice.proxy.wire.volatile import without_billing_line


def _is_kept_upstream(body: Body) -> bool:
    """Whether a responses request adds to a history that the upstream holds, or lets it drop or compact what it has."""
    continued = (body.field("previous_response_id"), body.field("conversation"))
    if any(value not in (b"", b"null") for value in continued):
        return True
    return body.field("truncation") == b'"auto"' or b"compact" in body.field("context_management")


def _clears_tool_uses(body: Body) -> bool:
    """Whether a messages request has the upstream clear tool uses, or replace them by a summary."""
    edits = body.field("context_management")
    return b"clear_tool_uses" in edits or b"compact" in edits


CHAT = Wire(
    WireName.CHAT,
    "/v1/chat/completions",
    Shape("messages", required=frozenset({"model", "messages"})),
    OPENAI_CHAT,
    context_fields=("tools",),
    render_error=openai_error,
    render_event=chat_event,
)

COMPLETIONS = Wire(
    WireName.COMPLETIONS,
    "/v1/completions",
    Shape(None, required=frozenset({"model"})),
    None,
    context_fields=(),
    render_error=openai_error,
    render_event=chat_event,
)

RESPONSES = Wire(
    WireName.RESPONSES,
    "/v1/responses",
    Shape("input", takes_text=True),
    OPENAI_RESPONSES,
    context_fields=("tools", "instructions"),
    render_error=openai_error,
    render_event=responses_event,
    edits_history=_is_kept_upstream,
)

MESSAGES = Wire(
    WireName.MESSAGES,
    "/v1/messages",
    Shape("messages", required=frozenset({"model", "messages"})),
    ANTHROPIC_MESSAGES,
    context_fields=("tools", "system"),
    render_error=anthropic_error,
    render_event=anthropic_event,
    stable={"system": without_billing_line},
    edits_history=_clears_tool_uses,
)

WIRES = {wire.name: wire for wire in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)}
"""Each by its name."""
