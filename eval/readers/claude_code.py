"""Claude Code's session files (`~/.claude/projects/…/*.jsonl`): a line an event, messages in Anthropic's form.

An answer is written block by block, in lines that share a message id. Sub-agents are conversations of their own,
and so is what was abandoned when somebody went back (`branches.py`). The system prompt is not in these files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.anthropic import as_chat
from sluice.eval.readers.base import Format, Message, Recorded, Value, add_calls
from sluice.eval.readers.branches import Node, branches

_KINDS = {"user", "assistant", "system", "attachment", "progress"}


def knows(value: Any) -> bool:
    """See `Format`."""
    if not isinstance(value, dict):
        return False
    return value.get("type") in _KINDS and "sessionId" in value and "uuid" in value


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    sessions: dict[str, list[Value]] = {}
    for value in values:
        line = value.data
        if not isinstance(line, dict):
            raise ValueError("an event must be an object")
        if not line.get("uuid") and line.get("type") not in ("user", "assistant"):
            continue
        name = str(line.get("sessionId"))
        if line.get("isSidechain"):
            name = f"{name}/{line.get('agentId') or 'sidechain'}"
        sessions.setdefault(name, []).append(value)
    for name, found in sessions.items():
        for number, indexes in enumerate(branches([_node(value.data) for value in found])):
            lines = [value for index in indexes if _is_sent((value := found[index]).data)]
            messages = _messages([value.data for value in lines])
            if messages:
                full_name = f"{name}/branch-{number}" if number else name
                yield Recorded("claude-code", messages, id=full_name, number=lines[0].number)


def _node(line: dict[str, Any]) -> Node:
    message = line.get("message")
    content = message.get("content") if line.get("type") == "user" and isinstance(message, dict) else None
    is_result = isinstance(content, list) and any(
        isinstance(b, dict) and b.get("type") == "tool_result" for b in content
    )
    is_said = content is not None and not is_result and not line.get("isMeta")
    is_summary = bool(line.get("isCompactSummary"))
    return Node(
        id=str(line.get("uuid") or ""),
        parent=line.get("parentUuid") or line.get("logicalParentUuid"),
        is_prompt=is_said or is_summary,
        is_root=is_said and not is_summary,
    )


def _messages(lines: Iterable[dict[str, Any]]) -> list[Message]:
    messages: list[Message] = []
    answers: dict[str, Message] = {}
    for line in lines:
        written = as_chat(line["message"])
        if line.get("isCompactSummary"):
            written[-1]["compaction_summary"] = True
        key = str(line["message"].get("id") or "")
        if line["type"] == "assistant":
            if key in answers:
                _join(answers[key], written[-1])
                continue
            if _is_empty(written[-1]):  # so far nothing but thoughts: the blocks that follow fill it
                written[-1]["content"] = ""
            if key:
                answers[key] = written[-1]
        messages += written
    return [message for message in messages if message["role"] != "assistant" or not _is_empty(message)]


def _is_sent(line: dict[str, Any]) -> bool:
    is_message = line.get("type") in ("user", "assistant") and isinstance(line.get("message"), dict)
    is_shown_only = line.get("isVisibleInTranscriptOnly") and not line.get("isCompactSummary")
    return is_message and not line.get("isApiErrorMessage") and not is_shown_only


def _join(message: Message, more: Message) -> None:
    message["content"] = "\n".join(filter(None, (message["content"], more["content"])))
    add_calls(message, more.get("tool_calls", []))


def _is_empty(message: Message) -> bool:
    return not message["content"] and "tool_calls" not in message


FORMAT = Format("Claude Code", knows, read)
