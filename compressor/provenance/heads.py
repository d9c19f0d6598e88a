"""What agents put before a command's output: how it ended, how long it took. None of it is a line of the file shown.

Only a head that is whole and stands at the very beginning counts, so that a text that merely speaks of one is left.
"""

from __future__ import annotations

import re

_HEADS = re.compile(
    r"""
    # Codex: exec_command, and its older shell tool
    (?:(?:Chunk\ ID|Exit\ code|Wall\ time|Original\ token\ count|Total\ output\ lines):\ [^\n]*\n
      |Process\ (?:exited\ with\ code|running\ with\ session\ ID)\ [^\n]*\n)+Output:\n
    # Codex's scripts that call its tools, in a text of its own
    |Script\ (?:completed|failed|terminated|running\ with\ cell\ ID\ [^\n]*)\n(?:Wall\ time\ [^\n]*\n)?Output:\n
    # mini-swe-agent
    |\s*<returncode>-?\d+</returncode>\s*<(?:output|output_head)>\n
    # SWE-agent, OpenHands, Cline and Roo Code in text mode
    |OBSERVATION:\n
    |EXECUTION\ RESULT\ of\ \[[^\]\n]+\]:\n
    |\[[a-z_]+(?:\ for\ '[^\n]*')?\]\ Result:\n
    """,
    re.VERBOSE,
)


def num_head_lines(text: str) -> int:
    """How many lines of a tool result stand before what its call shows."""
    match = _HEADS.match(text)
    return match[0].count("\n") if match is not None else 0


def is_head(text: str) -> bool:
    """Whether a text is a head and nothing else: it says alone how a call ended, or where one goes on that has not."""
    return _HEADS.fullmatch(text) is not None
