"""The side-context agent: candidates and a skeleton in, a few rounds of parallel look-ups, line ranges out.

Its conversation is its own and is dropped when it ends. Its answer may name only lines that it was shown; what it
names beyond them is cut off. In the manner of open agentic searchers: few turns, many calls in each.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sluice.search.deep.model import Call, ChatModel, Reply
from sluice.search.deep.seen import Seen
from sluice.search.deep.tools import TOOLS, call_tool
from sluice.search.errors import BackendError
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.view import View
from sluice.search.settings import DeepSettings
from sluice.search.tokens import result_tokens
from sluice.search.types import SearchResult

MAX_SKELETON_ROWS = 60
MAX_CANDIDATE_CHARS = 8_000
_PLACE = re.compile(r"(?<![\w./@+\-])([\w./@+\-]++):(\d+)(?:-(\d+))?")
"""Tried once for each run of such characters: small models repeat one for ever, and must not hold this process up."""
_SYSTEM = (
    "You find code. You are given a question about a repository, a sketch of it, and candidate lines. Look further "
    "with the tools; call up to {calls} at once. You have {turns} turns. Then answer with nothing but the places that "
    "answer the question, best first, one per line, as path:start-end. Name only lines that you have been shown."
)


class DeepAgent:
    """Runs side conversations with one model.

    Args:
        model: any that can call tools.
        settings: bounds on turns and calls.
    """

    def __init__(self, model: ChatModel, settings: DeepSettings) -> None:
        self._model = model
        self._settings = settings

    async def run(
        self, index: RepoIndex, query: str, candidates: Sequence[SearchResult], budget_tokens: int
    ) -> list[SearchResult]:
        """Line ranges that the model chose, within the budget; empty if it chose none that it had seen.

        Raises:
            BackendError: the model did not answer, or never came to an answer.
        """
        view = await asyncio.to_thread(index.view, 5.0)
        seen = Seen()
        for result in candidates:
            seen.add(result.path, result.start, result.end)
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": self._instructions()},
            {"role": "user", "content": _question(view, query, candidates)},
        ]
        for turn in range(self._settings.max_turns):
            is_last = turn == self._settings.max_turns - 1
            reply = await self._model.reply(messages, () if is_last else TOOLS)
            if not reply.calls:
                return await asyncio.to_thread(_chosen, index, seen, reply.text, budget_tokens)
            messages.extend(await self._turn(index, view, seen, reply))
        raise BackendError(f"the model called tools for {self._settings.max_turns} turns and never answered")

    async def _turn(self, index: RepoIndex, view: View, seen: Seen, reply: Reply) -> list[dict[str, Any]]:
        """What the model said, and the answers to its calls."""
        allowed = reply.calls[: self._settings.max_calls]
        answers = await asyncio.gather(
            *(asyncio.to_thread(call_tool, index, view, seen, call.name, call.arguments) for call in allowed)
        )
        refusals = [f"refused: at most {self._settings.max_calls} calls a turn"] * (len(reply.calls) - len(allowed))
        return [
            {"role": "assistant", "content": reply.text, "tool_calls": [_wire(call) for call in reply.calls]},
            *(
                {"role": "tool", "tool_call_id": call.id, "content": text}
                for call, text in zip(reply.calls, [*answers, *refusals], strict=True)
            ),
        ]

    def _instructions(self) -> str:
        return _SYSTEM.format(calls=self._settings.max_calls, turns=self._settings.max_turns)


def skeleton(view: View, first: Sequence[str]) -> str:
    """Directories with their number of files, and the outer definitions of some files."""
    directories = Counter(path.rpartition("/")[0] or "." for path in view.by_path)
    rows = [f"{directory}/ ({count} files)" for directory, count in directories.most_common(MAX_SKELETON_ROWS // 2)]
    for path in dict.fromkeys(first):
        entry = view.by_path.get(path)
        outer = [d for d in entry.definitions if d.parent < 0 and d.name] if entry is not None else []
        names = ", ".join(f"{d.name} {d.start}-{d.end}" for d in outer[:12])
        rows.append(f"{path}: {names}")
    return "\n".join(rows[:MAX_SKELETON_ROWS])


def _question(view: View, query: str, candidates: Sequence[SearchResult]) -> str:
    shown: list[str] = []
    for result in candidates:
        numbered = "\n".join(f"{at}: {line}" for at, line in enumerate(result.text.split("\n"), result.start))
        shown.append(f"{result.path}:{result.start}-{result.end}\n{numbered}")
    text = "\n\n".join(shown)[:MAX_CANDIDATE_CHARS]
    sketch = skeleton(view, [result.path for result in candidates])
    return f"Question: {query[:4000]}\n\nRepository:\n{sketch}\n\nCandidates:\n{text}"


def _chosen(index: RepoIndex, seen: Seen, text: str, budget_tokens: int) -> list[SearchResult]:
    """The places that the model's text names, cut to what it has seen and to the budget."""
    results: list[SearchResult] = []
    used = 0
    for path, start, end in _places(text):
        for low, high in seen.within(path, start, end):
            if any(r.path == path and r.start <= high and r.end >= low for r in results):
                continue
            try:
                lines = index.read(path).decode("utf-8", "replace").split("\n")
            except OSError:
                continue
            body = "\n".join(lines[low - 1 : high])
            cost = result_tokens(path, low, high, len(body))
            if low <= len(lines) and used + cost <= budget_tokens:
                used += cost
                score = round(1 / (1 + len(results)), 4)
                results.append(SearchResult(path, low, high, score, "chosen by the model", body))
    return results


def _places(text: str) -> Iterator[tuple[str, int, int]]:
    for match in _PLACE.finditer(text[:20_000]):
        start = int(match[2][:7])
        end = int((match[3] or match[2])[:7])
        if 1 <= start <= end:
            yield match[1].removeprefix("./"), start, end


def _wire(call: Call) -> dict[str, Any]:
    try:
        json.loads(call.arguments)
        arguments = call.arguments
    except (ValueError, RecursionError):
        arguments = "{}"  # servers refuse a history with broken JSON
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
