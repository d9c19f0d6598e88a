"""Conversations of our own making, for tests and the demo: one task, as four agents would have worked on it.

`generate.py` writes them, `project.py` holds the small program that they are about.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

AGENTS = ("claude-code", "codex-cli", "opencode", "mini-swe-agent")


def trace_file(agent: str) -> Path:
    """The file with the conversation of one of `AGENTS`."""
    return Path(str(files(__package__).joinpath(f"{agent}.jsonl")))
