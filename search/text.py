"""An answer as text for a reader: plain for agents, JSON for programs. Knows no terminal."""

from __future__ import annotations

import json

from sluice.search.types import SearchAnswer


def as_text(answer: SearchAnswer) -> str:
    """Each range under its `path:start-end` and the reason for it."""
    if not answer.results:
        return "Nothing found."
    blocks = [f"{r.path}:{r.start}-{r.end}  ({r.reason})\n{r.text}" for r in answer.results]
    return "\n\n".join(blocks)


def as_json(answer: SearchAnswer) -> str:
    """`{results: [{path, start, end, score, reason, text}], tokens, took_ms}` on one line."""
    results = [
        {
            "path": r.path,
            "start": r.start,
            "end": r.end,
            "score": r.score,
            "reason": r.reason,
            "text": r.text,
        }
        for r in answer.results
    ]
    return json.dumps(
        {"results": results, "tokens": answer.tokens, "took_ms": round(answer.took_ms, 2)}, ensure_ascii=False
    )
