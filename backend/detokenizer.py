"""Turns a stream of token ids into a stream of text: never half a character, never past a stop string.

Knows no engine and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"
_MAX_HELD_TOKENS = 16  # a character has at most four bytes; more than that is not a character in the making


class Detokenizer:
    """Decodes ids as they come; text is released when it can no longer change.

    Only a window of the last few tokens is decoded again at each step, so that the cost does not grow with the length.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []
        """Tokens whose text is out already; decoded along, as some tokenizers treat the first token differently."""
        self._held: list[int] = []

    def push(self, ids: Sequence[int]) -> str:
        """Text that became certain with these ids."""
        return "".join(self._push_one(token) for token in ids)

    def _push_one(self, token: int) -> str:
        self._held.append(token)
        before, after = self._decode(self._context), self._decode(self._context + self._held)
        if after.endswith(_REPLACEMENT) and len(self._held) < _MAX_HELD_TOKENS:
            return ""
        self._context, self._held = self._held, []
        return after[len(before) :]

    def flush(self) -> str:
        """What is left when no more ids come; an incomplete character becomes U+FFFD."""
        if not self._held:
            return ""
        before, after = self._decode(self._context), self._decode(self._context + self._held)
        self._context, self._held = self._held, []
        return after[len(before) :]


class StopStrings:
    """Cuts a text stream before the first stop string, also one that spans several pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False
        """Whether a stop string came; what follows it is dropped."""

    def push(self, text: str) -> str:
        """Text that is certainly before any stop string."""
        if self.hit:
            return ""
        self._held += text
        found = [index for stop in self._stops if (index := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            out, self._held = self._held[: min(found)], ""
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def flush(self) -> str:
        """What was held back in case a stop string would follow."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
