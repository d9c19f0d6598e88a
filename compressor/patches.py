"""What a patch shows of the file as it is afterwards: the added and the unchanged lines of each hunk.

Reads unified diffs and the `*** Begin Patch` form of Codex and OpenCode. Line numbers are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sluice.compressor.lines import Lines, split

_IS_PATCH = re.compile(r"^(?:@@|\*\*\* (?:Begin Patch|Update File|Add File))", re.MULTILINE)


def new_side(text: str) -> Iterator[Lines]:
    """The lines of each hunk as they stand in the patched file; nothing where the text is no patch."""
    if not _IS_PATCH.search(text):
        return
    hunk: list[str] = []
    for line in text.split("\n"):
        if line.startswith(("+", " ")) and not line.startswith("+++ "):
            hunk.append(line[1:])
        elif not line.startswith("-") or line.startswith("--- "):
            if hunk:
                yield split("\n".join(hunk))
            hunk = []
    if hunk:
        yield split("\n".join(hunk))
