"""Lines of a program's output that say what went wrong: errors, failing tests, the frames of stack traces.

Told by their form in the languages in the field; whether they are needed is not asked.
"""

from __future__ import annotations

import re

_FAILURE = re.compile(
    r"""
      \b(?:error|exception|panic(?:ked)?|fatal|assert(?:ion)?(?:\ failed|error)|traceback)\b   # said in words
    | \b(?:FAIL(?:ED|URE|URES)?|ERROR|FATAL|✗|✕|✖)\b | ^\s*[✗✕✖×]\s                      # test runners
    | ^\s*(?:File\ ".+",\ line\ \d+ | at\ .[^:(]*[:(].*\d | -->\ .+:\d+ | goroutine\ \d+ )        # frames
    | ^E\s{2,}\S | ^\S+\.\w+:\d+(?::\d+)?:\s | \b\w+(?:Error|Exception):                         # pytest, compilers
    """,
    re.VERBOSE | re.IGNORECASE,
)


def says_failure(text: str) -> bool:
    """Whether a line of a program's output speaks of a failure."""
    return _FAILURE.search(text) is not None
