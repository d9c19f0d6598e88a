"""Proposes what followed the same words earlier: in the prompt, in the output, or in texts that the caller named.

Prompt lookup decoding with an index of short n-grams, so that a long context costs no more than a short one; each match
is then extended backwards, and the longest wins. How much is proposed, and how long a match must be, follow what was
accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sluice.backend.embedded.speculation.adaptive_length import AdaptiveLength

_GRAM = 3
_MAX_CANDIDATES = 16
_MAX_MATCH = 32


@dataclass(slots=True)
class _Text:
    tokens: Sequence[int]
    num_indexed: int = 0


@dataclass(slots=True)
class PromptLookup:
    """Drafter for one sequence over its own tokens and `texts`."""

    texts: Sequence[Sequence[int]] = ()
    _sources: list[_Text] = field(init=False)
    _places: dict[tuple[int, ...], list[tuple[int, int]]] = field(default_factory=dict)
    """Ends of each n-gram: source and position behind it, in order."""
    _length: AdaptiveLength = field(default_factory=AdaptiveLength)
    _min_match: int = _GRAM
    """Shortest match that is trusted."""

    def __post_init__(self) -> None:
        self._sources = [_Text(()), *(_Text(text) for text in self.texts)]

    def propose(self, tokens: Sequence[int], max_num_tokens: int) -> Sequence[int]:
        """What followed the longest earlier match of the last tokens; nothing if there is none that is trusted."""
        if max_num_tokens <= 0 or len(tokens) < _GRAM:
            return ()
        self._sources[0].tokens = tokens
        for number in range(len(self._sources)):
            self._index(number)
        places = self._places.get(tuple(tokens[-_GRAM:]), ())
        best_length, best = 0, None
        for source, end in reversed(places[-_MAX_CANDIDATES:]):
            length = _match_length(self._sources[source].tokens, end, tokens)
            if length > best_length:
                best_length, best = length, (source, end)
        if best is None or best_length < self._min_match:
            return ()
        source, end = best
        return self._sources[source].tokens[end : end + min(max_num_tokens, self._length.tokens)]

    def note(self, num_proposed: int, num_accepted: int) -> None:
        """Propose more and trust shorter matches after success, less and longer ones after failure."""
        self._length.note(num_proposed, num_accepted)
        if num_accepted == num_proposed:
            self._min_match = _GRAM
        elif num_accepted == 0:
            self._min_match = min(self._min_match * 2, _MAX_MATCH)

    def close(self) -> None:
        """Nothing is held."""

    def _index(self, number: int) -> None:
        """Add the n-grams that have come since; the last, which nothing follows yet, comes with the next token."""
        source = self._sources[number]
        tokens = source.tokens
        for end in range(max(source.num_indexed, _GRAM), len(tokens)):
            self._places.setdefault(tuple(tokens[end - _GRAM : end]), []).append((number, end))
        source.num_indexed = max(len(tokens), _GRAM)


def _match_length(text: Sequence[int], end: int, tokens: Sequence[int]) -> int:
    """How many tokens before `end` in `text` equal the last of `tokens`, up to a limit."""
    limit = min(end, len(tokens), _MAX_MATCH)
    return next((n for n in range(limit) if text[end - 1 - n] != tokens[-1 - n]), limit)
