"""What a text costs, by the rule of four characters a token: cheap, and the same on every machine."""

from __future__ import annotations

CHARS_PER_TOKEN = 4


def result_tokens(path: str, start: int, end: int, num_chars: int) -> int:
    """Tokens of one result: its text and the line `path:start-end` above it."""
    header = len(path) + len(str(start)) + len(str(end)) + 3
    return -(-(num_chars + header) // CHARS_PER_TOKEN)
