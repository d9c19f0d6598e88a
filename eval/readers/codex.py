"""Codex' session files (`~/.codex/sessions/…/rollout-*.jsonl`): a line an event, messages as Responses items.

Since September 2025 a line is `{timestamp, type, payload}`; before that the items stood bare, below a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.base import Format, Message, Recorded, Value, text_of
from sluice.eval.readers.responses import add_item, as_chat

_KINDS = {"session_meta", "response_item", "event_msg", "turn_context", "compacted"}


def knows(value: Any) -> bool:
    """See `Format`."""
    if not isinstance(value, dict):
        return False
    is_head = {"id", "timestamp", "instructions"} <= value.keys() and "messages" not in value
    return is_head or (value.get("type") in _KINDS and isinstance(value.get("payload"), dict))


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    found = Recorded("codex-cli", [])
    for value in values:
        line = value.data
        if not isinstance(line, dict):
            raise ValueError("an event must be an object")
        payload = line.get("payload")
        if not isinstance(payload, dict):
            kind, payload = ("session_meta" if "instructions" in line else "response_item"), line
        else:
            kind = str(line.get("type"))
        if kind == "session_meta":
            found.id = found.id or str(payload.get("id") or "")
            base = payload.get("base_instructions")
            text = text_of(payload.get("instructions")) or text_of(base.get("text") if isinstance(base, dict) else base)
            if text and not found.messages:
                found.messages.append({"role": "system", "content": text})
        elif kind == "response_item":
            add_item(found.messages, payload)
        elif kind == "compacted":
            found.messages += _compacted(payload)
    if found.messages:
        yield found


def _compacted(payload: dict[str, Any]) -> list[Message]:
    """What stands for the history from here on."""
    history = as_chat(payload.get("replacement_history") or [])
    history = history or [{"role": "user", "content": text_of(payload.get("message"))}]
    return [{**history[0], "compaction_summary": True}, *history[1:]]


FORMAT = Format("Codex", knows, read)
