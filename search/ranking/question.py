"""What a question asks for: weighted index terms, and the identifiers that it names as such.

Knows no index; how rare a term is decides later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sluice.search.errors import QueryError
from sluice.search.index.tokenizer import STOPWORDS, raw_tokens, terms_of

MAX_QUERY_CHARS = 20_000
"""What stands later in a longer question is not read."""
MAX_TERMS = 96
_HEAD = re.compile(r"^.{12,}?(?:[.!?:;](?=\s|$)|\n|$)", re.DOTALL)
_HEAD_CUT = re.compile(r".{0,139}\w*", re.DOTALL)
"""Of a long sentence counts what stands before its 140th character, and the word there: half a word is in no index."""
_CODE_LIKE = re.compile(r"[A-Za-z]_[A-Za-z0-9]|^_|[a-z][A-Z]|[A-Z]{2,}[a-z]")
_CHANGE = re.compile(
    r"(?i)(fix|add|remove|support|allow|make|use|don'?t|do not|update|improve|implement|handle|change|move|rename|drop|"
    r"prevent|avoid|ensure|refactor|replace|set|return|skip|check|optimi[sz]e|reduce|deprecate|expose|pass|raise|throw|"
    r"introduce|extract|simplify|restore|enable|disable|correct|limit|keep|stop|convert|include|clean)(e?s|e?d|ing)?\b"
)
_ASKS = re.compile(r"(?i)(how|where|what|which|why|when|who|find|show|explain|locate)\b")
_QUOTED = re.compile(r"`([^`\n]{1,120})`|'([A-Za-z_]\w{2,60})'|\"([A-Za-z_]\w{2,60})\"")
_CALLED = re.compile(r"([A-Za-z_]\w*)\(|(?:\.|::|#)([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Question:
    """A question in the index's words.

    Attributes:
        text: as asked, cut to `MAX_QUERY_CHARS`.
        weights: term → how much the question is about it, more in the first sentence; stop words are left out.
        spoken: term → the word of the question that it came from.
        head: the terms of the first sentence.
        words: the words of the first sentence as they stand there, without stop words.
        openings: the first four characters of each term.
        identifiers: names that the question writes as code: `snake_case`, `camelCase`, `quoted`, `called()`.
        is_symbol: whether the question is nothing but one name, perhaps qualified.
        wants_tests: whether it asks about tests.
        asks_change: whether it begins like a commit message or a task.
        asks_how: whether it begins like a question.
    """

    text: str
    weights: dict[str, float]
    spoken: dict[str, str]
    head: frozenset[str]
    words: frozenset[str]
    openings: frozenset[str]
    identifiers: tuple[str, ...]
    is_symbol: bool
    wants_tests: bool
    asks_change: bool
    asks_how: bool


def parse_question(text: str) -> Question:
    """Read a question.

    Raises:
        QueryError: it holds no word.
    """
    text = text[:MAX_QUERY_CHARS].strip()
    match = _HEAD.match(text)
    cut = _HEAD_CUT.match(match.group() if match is not None else text)
    head_text = cut.group() if cut is not None else ""
    weights: dict[str, float] = {}
    head = _count(head_text, weights, weight=1.0)
    _count(text[len(head_text) :], weights, weight=0.4)
    if not weights:  # nothing but stop words: then they are what is asked for
        head = _count(text, weights, weight=1.0, keep_stopwords=True)
    if not weights:
        raise QueryError(f"the question {text[:80]!r} holds no word to search for")
    strongest = sorted(weights, key=lambda term: -weights[term])[:MAX_TERMS]
    return Question(
        text,
        {term: weights[term] for term in strongest},
        {term: token for token in reversed(raw_tokens(text)) for term in terms_of(token)},
        frozenset(head),
        frozenset(token for token in raw_tokens(head_text) if token.lower() not in STOPWORDS),
        frozenset(term[:4] for term in strongest),
        _identifiers(text),
        is_symbol=re.fullmatch(r"[\w.:#/\-<>\\]+[!?]?(\(\))?", text) is not None,
        wants_tests=re.search(r"\b(unit )?tests?\b|\bspecs?\b|\bfixtures?\b", text, re.IGNORECASE) is not None,
        asks_change=_CHANGE.match(text) is not None,
        asks_how=_ASKS.match(text) is not None,
    )


def _count(text: str, weights: dict[str, float], *, weight: float, keep_stopwords: bool = False) -> set[str]:
    """Add the text's terms; a repeated term gains less each time."""
    seen: set[str] = set()
    for token in raw_tokens(text):
        if token.lower() in STOPWORDS and not keep_stopwords:
            continue
        for term in terms_of(token):
            again = weights.get(term, 0.0)
            weights[term] = again + (weight if again == 0.0 else 0.3 * weight)
            seen.add(term)
    return seen


def _identifiers(text: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for match in _QUOTED.finditer(text):
        quoted = next(group for group in match.groups() if group is not None)
        found.update((token, None) for token in raw_tokens(quoted) if len(token) > 1)
    for match in _CALLED.finditer(text):
        found[next(group for group in match.groups() if group is not None)] = None
    found.update((token, None) for token in raw_tokens(text) if _CODE_LIKE.search(token) is not None)
    if re.fullmatch(r"[\w.:#\\]+", text) is not None:
        found.update((token, None) for token in raw_tokens(text))
    return tuple(name for name in found if len(name) > 1)[:32]
