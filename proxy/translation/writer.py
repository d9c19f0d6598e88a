"""What the writers of all formats share: how the pieces of an answer follow each other, and how one ends or fails."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sluice.proxy.translation.deltas import (
    Begin,
    CallArguments,
    CallBegin,
    Delta,
    End,
    Fault,
    Refusal,
    Stop,
    Text,
    Thinking,
    Tokens,
)
from sluice.proxy.translation.json_codec import Json


class AnswerWriter(ABC):
    """Writes one answer, as events and whole. What a format says for each piece is its subclass's."""

    _begins_with_fault = False
    """Whether an answer that fails at once has begun all the same."""

    def __init__(self) -> None:
        self._tokens = Tokens()
        self._end = End(Stop.END)
        self._fault: Fault | None = None
        self._has_begun = False

    def push(self, delta: Delta) -> bytes:
        """Take a piece; returns the events that it causes."""
        if isinstance(delta, Tokens):
            self._tokens = delta
            return b""
        if isinstance(delta, Fault):
            self._fault = delta
            begun = self._begin_once("") if self._begins_with_fault else b""
            return begun + self._fail(delta)
        begun = self._begin_once(delta.model if isinstance(delta, Begin) else "")
        if isinstance(delta, Text):
            return begun + self._text(delta.text)
        if isinstance(delta, Refusal):
            return begun + self._refusal(delta.text)
        if isinstance(delta, Thinking):
            return begun + self._thinking(delta)
        if isinstance(delta, CallBegin):
            return begun + self._call_begin(delta)
        if isinstance(delta, CallArguments):
            return begun + self._arguments(delta)
        if isinstance(delta, End):
            self._end = delta
            return begun + self._stop()
        return begun

    def finish(self) -> bytes:
        """The last events."""
        return b"" if self._fault is not None else self._begin_once("") + self._last()

    def whole(self) -> Json:
        """The answer as one body, after `finish`; an error's body where it is one."""
        return self._body() if self._fault is None else self._error(self._fault)

    def _begin_once(self, model: str) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        return self._begin(model)

    @abstractmethod
    def _begin(self, model: str) -> bytes: ...

    @abstractmethod
    def _text(self, piece: str) -> bytes: ...

    @abstractmethod
    def _refusal(self, piece: str) -> bytes: ...

    @abstractmethod
    def _thinking(self, delta: Thinking) -> bytes: ...

    @abstractmethod
    def _call_begin(self, delta: CallBegin) -> bytes: ...

    @abstractmethod
    def _arguments(self, delta: CallArguments) -> bytes: ...

    def _stop(self) -> bytes:
        """What is said as soon as the model has stopped."""
        return b""

    @abstractmethod
    def _fail(self, fault: Fault) -> bytes: ...

    @abstractmethod
    def _last(self) -> bytes: ...

    @abstractmethod
    def _body(self) -> Json: ...

    @abstractmethod
    def _error(self, fault: Fault) -> Json: ...
