"""The text of markers: one line that says what was dropped, how much, and where it still stands.

Markers are written and never read: text in a conversation that looks like one is text.
"""

from __future__ import annotations

MARKER_ID_CHARS = 4
"""Hex digits of the original's recall id that a marker shows."""


def seen_above(recall_id: str, num_lines: int, position: int, numbers: tuple[int, int] | None) -> str:
    """Marker for lines that are visible in an earlier message.

    Args:
        recall_id: id of the original of the message in which the marker stands.
        num_lines: how many lines it stands for.
        position: the message that shows them, counted from 1 after the leading system messages.
        numbers: the first and last line number that the dropped lines carried, where the copy does not show the same.
    """
    numbered = f", numbered {numbers[0]}-{numbers[1]}" if numbers else ""
    return f"[sluice {recall_id[:MARKER_ID_CHARS]}: {num_lines} lines as in message {position}{numbered}]"


def restored(recall_id: str, num_lines: int, first: int, last: int, position: int) -> str:
    """Heading of lines that were dropped from message `position` and are given back here."""
    marker_id = recall_id[:MARKER_ID_CHARS]
    return f"[sluice {marker_id}: {num_lines} lines of message {position} again, {first}-{last}]"


def omitted(recall_id: str, num_lines: int, first: int, last: int) -> str:
    """Marker for lines `first` to `last`: by the numbers that they carry, else counted from 1 in the result."""
    return f"[sluice {recall_id[:MARKER_ID_CHARS]}: {num_lines} lines omitted, {first}-{last}]"
