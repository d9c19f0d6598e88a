"""Anthropic Messages requests, one a line: `{"system": …, "messages": […]}`, and their blocks as chat messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.base import (
    Format,
    Message,
    Recorded,
    Requests,
    Value,
    add_calls,
    call,
    result,
    text_of,
    unwrap,
)

BLOCKS = {"tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use", "document"}
"""Types of content blocks that only this format has."""


def knows(value: Any) -> bool:
    """See `Format`."""
    request, answer = unwrap(value)
    messages = request.get("messages")
    if not isinstance(messages, list):
        return False
    if any(isinstance(m, dict) and _is_chat(m) for m in messages):
        return False
    blocks = (part for m in messages if isinstance(m, dict) for part in _blocks(m.get("content")))
    return (
        "system" in request or (answer or {}).get("type") == "message" or any(b.get("type") in BLOCKS for b in blocks)
    )


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    requests = Requests()
    for value in values:
        request, answer = unwrap(value.data)
        if not isinstance(request.get("messages"), list):
            raise ValueError("no messages")
        add_request(requests, request, answer, value)
    return requests.conversations()


def add_request(requests: Requests, request: dict[str, Any], answer: dict[str, Any] | None, value: Value) -> None:
    """Take one request in this format."""
    messages: list[Message] = []
    if system := text_of(request.get("system")):
        messages.append({"role": "system", "content": system})
    for message in request.get("messages") or []:
        messages += as_chat(message)
    said = as_chat(answer)[-1] if answer and answer.get("role") == "assistant" else None
    requests.add(Recorded("messages", messages, number=value.number), said)


def as_chat(message: dict[str, Any]) -> list[Message]:
    """One message as chat messages: results first, each a message of its own, as the chat form wants them."""
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise ValueError("a message must be an object with a role")
    if _is_chat(message):
        raise ValueError("a message of OpenAI's chat form among those of Anthropic's")
    texts, calls, results = [], [], []
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else _blocks(content):
        kind = block.get("type")
        if kind == "text":
            texts.append(str(block.get("text", "")))
        elif kind == "tool_use":
            calls.append(call(str(block.get("id")), str(block.get("name")), block.get("input") or {}))
        elif kind == "tool_result":
            results.append(result(str(block.get("tool_use_id")), text_of(block.get("content"))))
    own: list[Message] = []
    if texts or calls or not results:
        own.append({"role": role, "content": "\n".join(texts)})
        add_calls(own[0], calls)
    return [*results, *own]


def _is_chat(message: dict[str, Any]) -> bool:
    return message.get("role") in ("tool", "function") or bool(message.get("tool_calls"))


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


FORMAT = Format("Anthropic Messages", knows, read)
