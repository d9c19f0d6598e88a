"""A request's body: its bytes, where in them each message and each field lies, and what puts others in their place.

Splicing by position is what keeps untouched messages, other fields, their order and whitespace the client's bytes.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body, decoded as far as the proxy needs it."""

    raw: bytes
    """The client's bytes."""
    model: str
    """The model asked for; empty where the request names none."""
    stream: bool
    """Whether events are asked for."""
    spans: tuple[tuple[int, int], ...] | None
    """Where each message lies in `raw`; None where a key stands twice, so that nothing may be spliced."""
    fields: Mapping[str, tuple[int, int]]
    """Where the value of each of the outer object's fields lies; empty where `spans` is None."""
    messages: tuple[bytes, ...]
    """The JSON of each message, as the client sent it; empty where `spans` is None."""
    _places: dict[bytes, int] = field(default_factory=dict, compare=False, repr=False)
    """Where what was looked for lies; -1 for nowhere."""

    def holds(self, part: bytes) -> bool:
        """Whether these bytes are in the body: looked for once, and in what is new of a conversation alone."""
        if part not in self._places:
            self._places[part] = self.raw.find(part)
        return self._places[part] >= 0

    def field(self, name: str) -> bytes:
        """The JSON of one of the outer object's fields; empty where it is not there."""
        start, end = self.fields.get(name, (0, 0))
        return self.raw[start:end]

    def splice(self, messages: Sequence[bytes], fields: Mapping[str, bytes] | None = None) -> bytes:
        """Put these messages in the place of the client's, one for one; all else stays byte for byte.

        Args:
            messages: one for each of the client's.
            fields: other fields to replace, each of which the client sent.
        """
        assert self.spans is not None
        assert len(messages) == len(self.spans), "one for one"
        # What was not touched is mostly the very same object.
        others = itertools.compress(itertools.count(), map(operator.is_not, messages, self.messages))
        values = [(self.spans[i], messages[i]) for i in others if messages[i] != self.messages[i]]
        values += [(self.fields[name], value) for name, value in (fields or {}).items()]
        if not values:
            return self.raw
        view, done = memoryview(self.raw), 0
        parts: list[bytes | memoryview] = []
        for (start, end), value in sorted(values):
            parts += (view[done:start], value)
            done = end
        parts.append(view[done:])
        return b"".join(parts)
