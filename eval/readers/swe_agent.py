"""SWE-agent's `.traj` files: one JSON object with `history`, the messages with notes beside them.

The task itself is noted as an observation there; here only what follows an answer counts as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.base import Format, Message, Recorded, Value, text_of


def knows(value: Any) -> bool:
    """See `Format`."""
    history = value.get("history") if isinstance(value, dict) else None
    return isinstance(history, list) and any(isinstance(entry, dict) and "role" in entry for entry in history)


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    for value in values:
        if not knows(value.data):
            raise ValueError("a trajectory must be an object with a history")
        entries = [entry for entry in value.data["history"] if isinstance(entry, dict)]
        agents = [entry.get("agent") for entry in entries]
        entries = [entry for entry in entries if entry.get("agent") in (None, next(iter(agents), None))]
        name = (value.data.get("info") or {}).get("instance_id")
        found = Recorded("swe-agent", [], id=name if isinstance(name, str) else "", number=value.number)
        has_notes = any("message_type" in entry for entry in entries)
        is_answered = False
        for entry in entries:
            message = _message(entry)
            is_note = not has_notes or entry.get("message_type") == "observation"
            if message["role"] == "user" and is_answered and is_note and not entry.get("is_demo"):
                found.observation_indexes.append(len(found.messages))
            is_answered = is_answered or (message["role"] == "assistant" and not entry.get("is_demo"))
            found.messages.append(message)
        if found.messages:
            yield found


def _message(entry: dict[str, Any]) -> Message:
    message: Message = {"role": str(entry.get("role")), "content": text_of(entry.get("content"))}
    if entry.get("tool_calls"):
        message["tool_calls"] = entry["tool_calls"]
    if message["role"] == "tool":
        ids = entry.get("tool_call_ids") or [entry.get("tool_call_id") or ""]
        message["tool_call_id"] = str(ids[0])
    return message


FORMAT = Format("SWE-agent", knows, read)
