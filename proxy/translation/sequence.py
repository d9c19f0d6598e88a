"""Puts the pieces of parallel calls one call after the other, as the Messages format wants them.

A piece that belongs elsewhere waits until the open call's arguments are whole JSON; nearly always they are, as models
write one call after the other. Knows no wire format.
"""

from __future__ import annotations

from collections import deque

from sluice.proxy.translation.deltas import Begin, CallArguments, CallBegin, Delta, End, Fault, Tokens
from sluice.proxy.translation.json_codec import decode


class Sequencer:
    """Holds back what would come between the pieces of one call."""

    def __init__(self) -> None:
        self._open: int | None = None
        self._arguments: list[str] = []
        self._is_whole = False
        self._waiting: deque[Delta] = deque()

    def push(self, delta: Delta) -> list[Delta]:
        """Take a piece; returns those that can go out now, in order."""
        if isinstance(delta, Begin | Tokens):
            return [delta]
        if isinstance(delta, End | Fault):
            return [*self._drain(is_end=True), delta]
        if isinstance(delta, CallArguments) and delta.index == self._open:
            self._add(delta)
            return [delta, *self._drain(is_end=False)] if self._waiting else [delta]
        self._waiting.append(delta)
        return self._drain(is_end=False)

    def _add(self, delta: CallArguments) -> None:
        self._arguments.append(delta.text)
        self._is_whole = False

    def _drain(self, *, is_end: bool) -> list[Delta]:
        ready: list[Delta] = []
        while self._waiting and (is_end or self._can_close()):
            delta = self._waiting.popleft()
            ready.append(delta)
            self._open, self._arguments, self._is_whole = None, [], False
            if isinstance(delta, CallBegin | CallArguments):
                self._open = delta.index
                waiting, self._waiting = self._waiting, deque()
                for one in waiting:
                    if isinstance(one, CallArguments) and one.index == delta.index:
                        self._add(one)
                        ready.append(one)
                    else:
                        self._waiting.append(one)
        return ready

    def _can_close(self) -> bool:
        if self._open is None or self._is_whole:
            return True
        if not self._arguments or not self._arguments[-1].rstrip().endswith("}"):
            return False  # an object's last character; without it a long one would be decoded with every piece
        try:
            decode("".join(self._arguments))
        except ValueError:
            return False
        self._is_whole = True
        return True
