"""What a line looks like by itself: length, indentation, and what it seems to be. Knows no conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence

SHAPES = (
    "line_chars",
    "indent",
    "is_blank",
    "is_definition",
    "is_import",
    "is_comment",
    "is_failure",
    "is_success",
    "is_assignment",
    "opens_block",
    "has_quote",
    "has_call",
    "is_prose",
    "lines_since_definition",
)
"""Names of the numbers that `shapes` gives for each line."""

_DEFINITION = re.compile(
    r"^\s*(?:(?:export|public|private|protected|static|async|default|abstract|final|pub|unsafe|const|override|virtual"
    r"|inline|declare)(?:\([^)]*\))?\s+)*"
    r"(?:def|class|func|function|fn|struct|enum|interface|trait|impl|type|module|namespace|macro_rules!)\b"
    r"|^\s*(?:export\s+)?(?:const|let|var)\s+\w+\s*=\s*(?:async\s*)?(?:\(|function)|^#{1,6}\s"
)
_IMPORT = re.compile(r"^\s*(?:import|from|use|require|#include|using|package)\b|\brequire\(")
_COMMENT = re.compile(r"^\s*(?:#|//|/\*|\*|--|<!--|\"\"\"|''')")
_FAILURE = re.compile(
    r"(?i)\b(?:error|exception|fail(?:ed|ure|ures)?|traceback|panic|assert\w*|warning|not found|undefined|cannot|denied"
    r"|fatal|expected)\b|^E\s"
)
_SUCCESS = re.compile(r"(?i)\b(?:pass(?:ed|ing)?|ok|success\w*|done|up to date|completed?)\b|✓|\[100%\]")
_ASSIGNMENT = re.compile(r"^\s*[\w.\[\]\"'-]+\s*(?::[^=\n]*)?(?:[+\-*/|:]?=(?!=)|:\s)")
_QUOTE = re.compile(r"[\"'`]")
_CALL = re.compile(r"\w\(")
_CODE = re.compile(r"[{}()\[\];=<>_]|->|::")


def shapes(bodies: Sequence[str]) -> list[tuple[float, ...]]:
    """One tuple for each line, in the order of `SHAPES`.

    Args:
        bodies: the lines of one segment, less their number gutters.
    """
    found: list[tuple[float, ...]] = []
    since_definition = 60
    for body in bodies:
        line = body.strip()
        is_definition = _DEFINITION.search(body) is not None
        since_definition = 0 if is_definition else min(since_definition + 1, 60)
        num_words = line.count(" ") + 1
        found.append(
            (
                min(len(line), 400),
                min(len(body) - len(body.lstrip()), 40),
                not any(map(str.isalnum, line)),
                is_definition,
                _IMPORT.search(body) is not None,
                _COMMENT.match(body) is not None,
                _FAILURE.search(line) is not None,
                _SUCCESS.search(line) is not None,
                _ASSIGNMENT.match(body) is not None,
                line.endswith(("{", ":", "(", "[", "=>", "then", "do")),
                _QUOTE.search(line) is not None,
                _CALL.search(line) is not None,
                num_words >= 5 and len(_CODE.findall(line)) * 4 < num_words,
                since_definition,
            )
        )
    return found
