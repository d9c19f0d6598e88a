"""What an examination can come to. Knows nothing of what is examined."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it stands with one thing."""

    GOOD = "good"
    NOTE = "note"
    """Works; there is more to be had."""
    BAD = "bad"
    """Does not work, or will not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """What, in a word or two."""
    verdict: Verdict
    says: str
    """What was found."""
    remedy: str = ""
    """What to do about it; a command where there is one."""


def good(subject: str, says: str) -> Finding:
    """It is as it should be."""
    return Finding(subject, Verdict.GOOD, says)


def note(subject: str, says: str, remedy: str = "") -> Finding:
    """It works, and something is worth knowing."""
    return Finding(subject, Verdict.NOTE, says, remedy)


def bad(subject: str, says: str, remedy: str) -> Finding:
    """It does not work, and this mends it."""
    return Finding(subject, Verdict.BAD, says, remedy)
