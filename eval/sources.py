"""Where a request's tokens come from: which role, and which tool's results. Knows no policy."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sluice.eval.cost import Usage
from sluice.eval.data import Trace
from sluice.eval.message import Message, calls_of

OBSERVATION = "tool output"
"""Of agents that speak in text alone, so that no tool is named."""


class Sources:
    """Names the source of each message of one conversation, as it was recorded or as it was forwarded."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._calls: dict[str, list[tuple[int, str]]] = {}
        """By id: where it was used, and for which tool. Local servers use the same ids on every turn."""
        for index, message in enumerate(trace.messages):
            if message.num_calls:
                for call in calls_of(json.loads(message.raw)):
                    self._calls.setdefault(call.id, []).append((index, call.name))
        self._known: dict[tuple[int, bytes], str] = {}

    def add(self, sums: dict[str, Usage], messages: Sequence[Message], history: Sequence[int], usage: Usage) -> None:
        """Share one request's bill out among the sources of its messages: what comes first was read, then written.

        Args:
            sums: what is added to.
            messages: as they were forwarded.
            history: where the client's messages stand in the conversation.
            usage: of the request.
        """
        is_same_length = len(messages) == len(history)
        found: dict[str, list[float]] = {}
        end, cached = 0.0, usage.read + usage.write
        for position, message in enumerate(messages):
            middle = end + message.num_tokens / 2
            end += message.num_tokens
            source = self._source(message, history[position] if is_same_length else -1)
            parts = found.setdefault(source, [0.0, 0.0, 0.0])
            parts[0 if middle < usage.read else 1 if middle < cached else 2] += message.num_tokens
        for source, (read, write, plain) in found.items():
            sums[source] = sums.get(source, Usage()) + Usage(read, write, plain)

    def _source(self, message: Message, index: int) -> str:
        key = (index, message.identity)
        if key not in self._known:
            self._known[key] = self._find(message, index)
        return self._known[key]

    def _find(self, message: Message, index: int) -> str:
        if message.role in ("tool", "function"):
            data = json.loads(message.raw)
            calls = self._calls.get(data.get("tool_call_id") or "", ())
            nearest = next((name for place, name in reversed(calls) if index < 0 or place < index), "")
            return nearest or data.get("name") or OBSERVATION
        return OBSERVATION if index in self._trace.results else message.role
