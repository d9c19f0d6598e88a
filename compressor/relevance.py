"""How much each line of some texts bears on a query, by the words that they share. Knows no model.

Rare words count for more (inverse document frequency, Spärck Jones 1972), names are taken apart at underscores and
capitals, and a line lends half of its weight to those around it: what is asked for seldom ends at one line.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[A-Za-z][a-z]+|[A-Z]{2,}|\d{2,}|[^\W\d_]{2,}")
_MAX_SHARE = 0.2
"""A word that stands in more of the lines tells nothing."""
_REACH = 3
"""Lines on each side that a line lends weight to."""


def relevance(texts: Sequence[Sequence[str]], query: str) -> list[list[float]]:
    """The share of the query's words, by weight, that stand in or about each line.

    Args:
        texts: each as its lines.
        query: in words; an empty one bears on nothing.

    Returns:
        For each text, for each line a number in [0, 1].
    """
    wanted = words(query)
    found = [[_matched(line, wanted) for line in lines] for lines in texts]
    counts = Counter(word for lines in found for matched in lines for word in matched)
    num_lines = max(1, sum(map(len, found)))
    weights = {
        word: math.log(num_lines / count) for word, count in counts.items() if count <= max(1.0, _MAX_SHARE * num_lines)
    }
    total = sum(weights.values()) or 1.0
    return [_lent([sum(weights.get(word, 0.0) for word in matched) / total for matched in lines]) for lines in found]


def _matched(line: str, wanted: frozenset[str]) -> frozenset[str]:
    """Those of the words that stand in a line."""
    lowered = line.lower()
    # Most lines hold none of them, which is told without taking them apart.
    return wanted & words(line) if any(word in lowered for word in wanted) else frozenset()


def words(text: str) -> frozenset[str]:
    """The words of a text, names taken apart, in lower case and less a plural's ending."""
    return frozenset(word.lower().removesuffix("s") for word in _WORD.findall(text) if len(word) > 2)


def _lent(weights: Sequence[float]) -> list[float]:
    """Each line's weight, or half of the highest about it."""
    lent = list(weights)
    for index, weight in enumerate(weights):
        if weight:
            for near in range(max(0, index - _REACH), min(len(weights), index + _REACH + 1)):
                lent[near] = max(lent[near], weight / 2)
    return lent
