"""Decodes requests from where they go on: a conversation's next request begins with the bytes of its last.

The last messages are read anew each time, as clients move `cache_control` about in them.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass

from sluice.proxy.body.body import Body
from sluice.proxy.body.parse import parse_body, parse_on
from sluice.proxy.body.shape import Shape

_MIN_BYTES = 16 * 1024
"""Smaller bodies are decoded as a whole: that takes less than looking for their beginning."""
_NUM_READ_ANEW = 4
_MAX_TRIED = 64
_NUM_TELLING = 256


@dataclass(frozen=True, slots=True)
class _Known:
    owner: tuple[bytes, str]
    body: Body
    num_messages: int
    """So many of its messages are taken over."""
    num_bytes: int
    """The body up to the end of those."""

    def begins(self, raw: bytes) -> bool:
        """Whether a body begins with the same bytes."""
        # Conversations begin alike, and end each in its own way: so most are told without a copy of the beginning.
        end = slice(max(0, self.num_bytes - _NUM_TELLING), self.num_bytes)
        return raw[end] == self.body.raw[end] and raw.startswith(self.body.raw[: self.num_bytes])


class KnownBodies:
    """The bodies that were decoded last.

    Args:
        max_bytes: bound on what is held of all conversations together; 0 holds nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0
        """Bytes that are held: each body, and its messages."""
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._num_seen = 0

    def parse(self, raw: bytes, shape: Shape, owner: bytes) -> Body:
        """Decode a body.

        Args:
            raw: the body.
            shape: its outer form.
            owner: whose it is; nothing is shared between owners.

        Raises:
            RequestError: as `parse_body`.
        """
        if len(raw) < _MIN_BYTES or shape.list_field is None:
            return parse_body(raw, shape)
        key = (owner, shape.list_field)
        body: Body | None = None
        number = self._find(raw, key)
        if number is not None:
            known = self._known[number]
            body = parse_on(raw, shape, known.body, known.num_messages)
            if body is not None:
                self._forget(number)  # the longer one takes its place
        if body is None:
            body = parse_body(raw, shape)
        self._keep(body, key)
        return body

    def _find(self, raw: bytes, owner: tuple[bytes, str]) -> int | None:
        for number in itertools.islice(reversed(self._known), _MAX_TRIED):
            known = self._known[number]
            if known.owner == owner and known.begins(raw):
                return number
        return None

    def _keep(self, body: Body, owner: tuple[bytes, str]) -> None:
        num_messages = len(body.spans or ()) - _NUM_READ_ANEW
        if body.spans is None or num_messages < 1 or 2 * len(body.raw) > self._max_bytes:
            return
        self._num_seen += 1
        self._known[self._num_seen] = _Known(owner, body, num_messages, body.spans[num_messages - 1][1])
        self.num_bytes += 2 * len(body.raw)
        while self.num_bytes > self._max_bytes:
            self._forget(next(iter(self._known)))

    def _forget(self, number: int) -> None:
        self.num_bytes -= 2 * len(self._known.pop(number).body.raw)
