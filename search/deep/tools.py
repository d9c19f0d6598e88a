"""The five tools that the model may call: `grep`, `read`, `glob`, `definitions`, `references`. All bounded.

Each answers in text with line numbers, and notes the lines that it showed. Bad arguments give an answer that says so,
never an exception: the model may try again.
"""

from __future__ import annotations

import json
from typing import Any

from sluice.search.deep.seen import Seen
from sluice.search.errors import QueryError
from sluice.search.index.exact import find_exact, matches_glob
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.symbols import find_definitions, find_references
from sluice.search.index.view import View

MAX_ANSWER_CHARS = 4_000
MAX_READ_LINES = 120
MAX_HITS = 40


def _tool(name: str, description: str, required: str, optional: dict[str, str] | None = None) -> dict[str, Any]:
    kinds = {required: "string", **(optional or {})}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in kinds.items()},
                "required": [required],
            },
        },
    }


TOOLS = (
    _tool("grep", "Lines that match a regular expression.", "pattern", {"glob": "string"}),
    _tool("read", "Lines of a file.", "path", {"start": "integer", "end": "integer"}),
    _tool("glob", "Files whose path matches, e.g. src/**/*.py.", "pattern"),
    _tool("definitions", "Where a name is defined.", "name"),
    _tool("references", "Where a name is used.", "name"),
)


def call_tool(index: RepoIndex, view: View, seen: Seen, name: str, arguments: str) -> str:
    """Run one call; `arguments` is JSON. The answer is at most `MAX_ANSWER_CHARS` long."""
    try:
        given = json.loads(arguments or "{}")
        if not isinstance(given, dict):
            raise TypeError("arguments are no object")
        lines = _run(index, view, seen, name, given)
    except KeyError as error:
        return f"bad call of {name}: the argument {error} is missing"
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        return f"bad call of {name}: {error}"
    except (QueryError, OSError) as error:
        return f"{name}: {error}"
    answer = "\n".join(lines) or "nothing found"
    return answer if len(answer) <= MAX_ANSWER_CHARS else answer[:MAX_ANSWER_CHARS] + "\n…"


def _run(index: RepoIndex, view: View, seen: Seen, name: str, given: dict[str, Any]) -> list[str]:
    if name == "grep":
        glob = None if given.get("glob") is None else str(given["glob"])
        hits = find_exact(index, view, str(given["pattern"]), is_regex=True, glob=glob, max_hits=MAX_HITS)
        return _cut(
            [(hit.path, hit.line, hit.line, f"{hit.path}:{hit.line}: {hit.text.strip()}") for hit in hits], seen
        )
    if name == "read":
        return _read(index, view, seen, str(given["path"]), int(given.get("start") or 1), given.get("end"))
    if name == "glob":
        return sorted(path for path in view.by_path if matches_glob(path, str(given["pattern"])))[:100]
    if name == "definitions":
        found = find_definitions(view, str(given["name"]), max_results=MAX_HITS)
        return _cut(
            [
                (
                    s.path,
                    s.definition.start,
                    s.definition.start,
                    f"{s.path}:{s.definition.start}-{s.definition.end}: {s.definition.kind} {s.definition.name}",
                )
                for s in found
            ],
            seen,
        )
    if name == "references":
        uses = find_references(index, view, str(given["name"]), max_results=MAX_HITS)
        return _cut([(use.path, use.line, use.line, f"{use.path}:{use.line}: {use.text}") for use in uses], seen)
    raise ValueError(f"there is no tool {name!r}")


def _read(index: RepoIndex, view: View, seen: Seen, path: str, start: int, end: Any) -> list[str]:
    if path not in view.by_path:
        raise QueryError(f"{path!r} is not an indexed file")
    lines = index.read(path).decode("utf-8", "replace").split("\n")
    start = max(1, start)
    last = min(len(lines), start + MAX_READ_LINES - 1 if end is None else min(int(end), start + MAX_READ_LINES - 1))
    return _cut([(path, n, n, f"{n}: {lines[n - 1][:400]}") for n in range(start, last + 1)], seen)


def _cut(rows: list[tuple[str, int, int, str]], seen: Seen) -> list[str]:
    """The rows' texts as far as they fit; only what is shown counts as seen."""
    shown: list[str] = []
    num_chars = 0
    for path, start, end, text in rows:
        num_chars += len(text) + 1
        if num_chars > MAX_ANSWER_CHARS:
            break
        seen.add(path, start, end)
        shown.append(text)
    return shown
