"""Claude Code's session files (`~/.claude/projects/…/*.jsonl`): a line an event, messages in Anthropic's form.

An answer is written block by block, in lines that share a message id. Sub-agents are conversations of their own.
The system prompt is not in these files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.anthropic import as_chat
from sluice.eval.readers.base import Format, Message, Recorded, Value, add_calls

_KINDS = {"user", "assistant", "system", "attachment", "progress"}


def knows(value: Any) -> bool:
    """See `Format`."""
    if not isinstance(value, dict):
        return False
    return value.get("type") in _KINDS and "sessionId" in value and "uuid" in value


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    found: dict[str, Recorded] = {}
    answers: dict[tuple[str, str], Message] = {}
    for value in values:
        line = value.data
        message = line.get("message") if isinstance(line, dict) else None
        if line.get("type") not in ("user", "assistant") or not isinstance(message, dict) or _is_unsent(line):
            continue
        name = str(line.get("sessionId"))
        if line.get("isSidechain"):
            name = f"{name}/{line.get('agentId') or 'sidechain'}"
        conversation = found.setdefault(name, Recorded("claude-code", [], id=name, number=value.number))
        written = as_chat(message)
        if line.get("isCompactSummary"):
            written[-1]["compaction_summary"] = True
        key = (name, str(message.get("id")))
        if line["type"] == "assistant" and message.get("id") and key in answers:
            _join(answers[key], written[-1])
            continue
        if line["type"] == "assistant":
            if _is_empty(written[-1]):  # so far nothing but thoughts: the blocks that follow fill it
                written[-1]["content"] = ""
            answers[key] = written[-1]
        conversation.messages += written
    for conversation in found.values():
        conversation.messages = [m for m in conversation.messages if m["role"] != "assistant" or not _is_empty(m)]
        if conversation.messages:
            yield conversation


def _is_unsent(line: dict[str, Any]) -> bool:
    return bool(
        line.get("isApiErrorMessage") or (line.get("isVisibleInTranscriptOnly") and not line.get("isCompactSummary"))
    )


def _join(message: Message, more: Message) -> None:
    message["content"] = "\n".join(filter(None, (message["content"], more["content"])))
    add_calls(message, more.get("tool_calls", []))


def _is_empty(message: Message) -> bool:
    return not message["content"] and "tool_calls" not in message


FORMAT = Format("Claude Code", knows, read)
