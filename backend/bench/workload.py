"""The prompts of the benchmark: plain questions, and edits, whose answers repeat most of the prompt.

Edits are of source files of the standard library, so that every machine has them.
"""

from __future__ import annotations

import heapq
import inspect
import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

_TOPICS = ("the sea", "a garden", "bread", "the moon", "trains", "music", "chess", "rivers", "winter", "clocks")
_FILES: Sequence[ModuleType] = (heapq, textwrap)
_NUM_EDIT_CHARS = 2400
MAX_NUMBER = 10**6
"""Numbers of questions stay below it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one stream asks."""

    text: str
    """Continued as it is, without a chat template, so that every server sees the same."""
    num_tokens: int
    """To generate."""


def plain(number: int, num_tokens: int) -> Prompt:
    """A question with a free answer; each number's is another, so that no cache helps."""
    topic = _TOPICS[number % len(_TOPICS)]
    return Prompt(f"Story {number}. A long tale about {topic}, told slowly, with many details:\n\nOnce", num_tokens)


def plain_round(number: int, counts: Sequence[int], num_tokens: int) -> list[list[Prompt]]:
    """Questions for each of some numbers of streams; no two are alike, in this round or any other."""
    numbers = itertools.count(1 + number * sum(counts))
    return [[plain(next(numbers), num_tokens) for _ in range(count)] for count in counts]


def edit(number: int, num_tokens: int) -> Prompt:
    """A file that is to be written out again, and its beginning."""
    source = inspect.getsource(_FILES[number % len(_FILES)])[:_NUM_EDIT_CHARS]
    start = f"File {number}:\n```python\n{source}\n```\nThe same file again, with nothing changed:\n```python\n"
    return Prompt(start + source[:200], num_tokens)


def long(number: int, num_words: int) -> Prompt:
    """A prompt of about so many tokens, of which one token is wanted: measures the prompt alone."""
    words = (f"{_TOPICS[(number * 7 + index) % len(_TOPICS)].split()[-1]}" for index in range(num_words))
    return Prompt(f"List {number}: " + " ".join(words), 1)
