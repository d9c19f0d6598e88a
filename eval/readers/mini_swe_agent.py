"""mini-swe-agent's trajectories: `{"info": …, "messages": […], "trajectory_format": "mini-swe-agent-…"}`.

Its first versions wrote the bare list of messages. The agent speaks in text or in tool calls, chat or Responses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.base import Format, Message, Recorded, Value, text_of
from sluice.eval.readers.responses import add_item


def knows(value: Any) -> bool:
    """See `Format`."""
    if isinstance(value, dict):
        is_named = str(value.get("trajectory_format", "")).startswith("mini-swe-agent")
        return isinstance(value.get("messages"), list) and (is_named or "mini_version" in (value.get("info") or {}))
    if not isinstance(value, list):
        return False
    said = [m.get("content") for m in value if isinstance(m, dict) and m.get("role") == "assistant"]
    return any(isinstance(text, str) and ("```bash" in text or "```mswea" in text) for text in said[:3])


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    for value in values:
        if not knows(value.data):
            raise ValueError("not a trajectory of mini-swe-agent")
        data = value.data if isinstance(value.data, dict) else {"messages": value.data}
        found = Recorded("mini-swe-agent", [], id=str(data.get("instance_id") or ""), number=value.number)
        for message in data["messages"]:
            if not isinstance(message, dict):
                raise ValueError("a message must be an object")
            is_answered = any(each["role"] == "assistant" for each in found.messages)
            if message.get("role") == "user" and is_answered:
                found.observation_indexes.append(len(found.messages))
            _add(found.messages, message)
        yield found


def _add(messages: list[Message], message: dict[str, Any]) -> None:
    if isinstance(message.get("output"), list):  # a whole answer of the Responses API
        for item in message["output"]:
            add_item(messages, item)
    elif "role" not in message:
        add_item(messages, message)
    elif message["role"] != "exit":  # a note on how the run ended, which no model is sent
        kept = {key: message[key] for key in ("role", "tool_calls", "tool_call_id", "name") if message.get(key)}
        messages.append({**kept, "content": text_of(message.get("content"))})


FORMAT = Format("mini-swe-agent", knows, read)
