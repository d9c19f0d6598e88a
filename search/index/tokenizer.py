"""From source text to index terms: whole identifiers, their sub-tokens, and stems.

`HandlerStack` gives `handlerstack`, `handler`, `stack`; words are stemmed by a few suffix rules in the manner of
Porter (1980), which cost a dictionary look-up per word once it has been seen. Knows no files and no scores.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_TOKEN_CHARS = 80
"""Longer runs of word characters are data (hashes, base64), not names."""
_TOKEN = re.compile(r"[^\W\d]\w*|\d{2,6}(?!\w)")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\dA-Za-z_]+")
_VOWEL = re.compile(r"[aeiouy]")

_STOPWORDS = """
a an and are as at be by can do does for from has have how i if in into is it its not of on or should so than
that the their then there these this to was we were what when where which who why will with within without you
your find code
"""
STOPWORDS = frozenset(_STOPWORDS.split())
"""Words that say nothing about where code is; dropped from questions only."""


def raw_tokens(text: str) -> list[str]:
    """Identifiers and numbers as they stand in the text."""
    return _TOKEN.findall(text)


@lru_cache(maxsize=262_144)
def terms_of(token: str) -> tuple[str, ...]:
    """Index terms of one raw token: the whole in lower case if it is compound, and the stems of its parts."""
    if len(token) > MAX_TOKEN_CHARS:
        return ()
    parts = _CAMEL.findall(token) if not token.isdigit() else [token]
    stems = tuple(dict.fromkeys(stem(part.lower()) for part in parts if len(part) > 1 or not part.isascii()))
    whole = token.strip("_").lower()
    if len(parts) > 1 and whole:
        return (whole, *(s for s in stems if s != whole))
    if not stems and len(whole) == 1:
        return (whole,)
    return stems


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The word without its inflection: plural, -ed, -ing, -ly, and the commonest derivations.

    Two forms of one word should meet; that the stem be a word is no aim.
    """
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    word = _without_plural(word)
    word = _without_participle(word)
    for suffix, replacement in _DERIVATIONS:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)] + replacement
            break
    if len(word) > 4 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 3 and word.endswith("y") else word


_DERIVATIONS = (
    ("ization", "iz"),
    ("isation", "iz"),
    ("ational", "at"),
    ("iveness", "iv"),
    ("fulness", "ful"),
    ("izers", "iz"),
    ("izer", "iz"),
    ("iser", "iz"),
    ("ation", "at"),
    ("ator", "at"),
    ("able", ""),
    ("ible", ""),
    ("ment", ""),
    ("ness", ""),
    ("tion", "t"),
    ("sion", "s"),
    ("ance", ""),
    ("ence", ""),
    ("ise", "iz"),
    ("ize", "iz"),
    ("ity", ""),
    ("ive", ""),
    ("ous", ""),
    ("ful", ""),
    ("al", ""),
    ("ly", ""),
    ("er", ""),
    ("or", ""),
)


def _without_plural(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _without_participle(word: str) -> str:
    for suffix in ("ing", "ed"):
        base = word[: -len(suffix)]
        if word.endswith(suffix) and len(base) >= 3 and _VOWEL.search(base):
            if base.endswith(("at", "iz", "bl")):
                return base + "e"
            if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "lsz":
                return base[:-1]
            return base
    return word


def forget_terms() -> None:
    """Empty the tables of words seen, which grow while many files are indexed."""
    terms_of.cache_clear()
    stem.cache_clear()
