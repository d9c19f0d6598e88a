"""One answer of the chat wire as a round: whose its calls are, and how it ended. Knows no streams."""

from __future__ import annotations

from sluice.proxy.search_tool.definition import NAME
from sluice.proxy.search_tool.rounds import Call, Round
from sluice.proxy.translation import fields
from sluice.proxy.translation.json_codec import Json, mapping, objects, text

BETWEEN = "\n\n"
"""Between the texts of two rounds: an answer has room for one text only."""


def round_of(message: Json, reason: str) -> Round:
    """Put a round together from its message, whole, and the reason for which it ended."""
    asked = objects(message.get("tool_calls"))
    calls = [call for call in asked if is_ours(call)]
    ours = tuple(Call(text(call.get("id")), text(mapping(call["function"]).get("arguments"))) for call in calls)
    # Some servers say "stop" where they call; an answer that was cut or filtered says so.
    awaits_results = bool(asked) and reason in ("tool_calls", "stop")
    said = message.get("content")
    has_text = any(one.strip() for one in ([said] if isinstance(said, str) else fields.texts(said)))
    return Round(({"role": "assistant", **message},), ours, len(asked) - len(calls), awaits_results, has_text)


def is_ours(call: Json) -> bool:
    """Whether a call is one of our tool."""
    return mapping(call.get("function")).get("name") == NAME


def finish_reason(reason: object, *, has_calls: bool) -> object:
    """Why the answer ended, where the client sees none of the calls for which it did."""
    return "stop" if reason == "tool_calls" and not has_calls else reason
