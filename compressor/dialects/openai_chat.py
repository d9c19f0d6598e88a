"""Messages of OpenAI's `/v1/chat/completions`, as every provider that imitates it sends them too.

Tool results come as `tool` (or legacy `function`) messages, or, from text-only agents, in user messages; which of
those are tool output is decided later (`provenance/frames.py`). Unknown fields and parts pass unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from sluice.compressor.dialects.json_message import (
    CACHE_CONTROL,
    arguments_text,
    decode,
    encode,
    lone_text,
    without_cache_control,
)
from sluice.compressor.errors import MalformedMessageError
from sluice.compressor.types import Message, Role, Text, ToolCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class OpenAIChat:
    """The adapter (see `Dialect`)."""

    name = "openai-chat"

    def parse(self, raw: bytes) -> Message:
        """See `Dialect.parse`."""
        fields = decode(raw)
        role = _ROLES.get(str(fields.get("role")))
        if role is None:
            raise MalformedMessageError(f"role is {fields.get('role')!r}")
        call_id = fields.get("tool_call_id") if role == "tool" else None
        is_result = role == "tool"
        texts = tuple(
            Text(text, call_id=call_id if isinstance(call_id, str) else None, is_result=is_result)
            for text in _texts(fields)
        )
        calls = tuple(_calls(fields))
        num_chars = sum(len(text.text) for text in texts) + sum(len(call.name) + len(call.arguments) for call in calls)
        canonical = fields if _is_canonical(raw, fields) else _canonical(fields)
        identity = blake2b(encode(canonical), digest_size=16).digest()
        return Message(role=role, texts=texts, calls=calls, identity=identity, num_chars=num_chars)

    def render(self, raw: bytes, texts: Mapping[int, str]) -> bytes:
        """See `Dialect.render`."""
        fields = _canonical(decode(raw))
        content = fields.get("content")
        if isinstance(content, str):
            fields["content"] = texts.get(0, content)
        elif isinstance(content, list):
            for index, part in enumerate(part for part in content if _is_text(part)):
                part["text"] = texts.get(index, part["text"])
        return encode(fields)

    def carry(self, raw: bytes, rendition: bytes) -> bytes:
        """See `Dialect.carry`."""
        if CACHE_CONTROL.encode() not in raw:
            return rendition
        sent, fields = decode(raw), decode(rendition)
        carried = False
        if CACHE_CONTROL in sent:
            fields[CACHE_CONTROL] = sent[CACHE_CONTROL]
            carried = True
        sent_parts = sent.get("content")
        if isinstance(sent_parts, list) and any(CACHE_CONTROL in part for part in sent_parts if isinstance(part, dict)):
            content = fields.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for sent_part, part in zip(sent_parts, parts or [], strict=True):
                if isinstance(sent_part, dict) and CACHE_CONTROL in sent_part:
                    part[CACHE_CONTROL] = sent_part[CACHE_CONTROL]
            fields["content"] = parts
            carried = True
        return encode(fields) if carried else rendition


OPENAI_CHAT = OpenAIChat()
"""The adapter has no state: one serves all."""


def _texts(fields: dict[str, Any]) -> Iterator[str]:
    content = fields.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if _is_text(part))
    elif content is not None:
        raise MalformedMessageError(f"content is {type(content).__name__}, not text, parts or null")


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _calls(fields: dict[str, Any]) -> Iterator[ToolCall]:
    """The calls of a message: `function` calls, `custom` ones, and the legacy single `function_call`."""
    calls = fields.get("tool_calls") or []
    if legacy := fields.get("function_call"):
        calls = [*calls, {"id": "", "function": legacy}]
    if not isinstance(calls, list):
        raise MalformedMessageError(f"tool_calls is {type(calls).__name__}, not a list")
    for call in calls:
        body = (call.get("function") or call.get("custom")) if isinstance(call, dict) else None
        if not isinstance(body, dict):
            raise MalformedMessageError("a tool call names no function")
        arguments = body.get("arguments", body.get("input", ""))
        yield ToolCall(
            id=str(call.get("id") or ""),
            name=str(body.get("name") or ""),
            arguments=arguments_text(arguments),
        )


def _is_canonical(raw: bytes, fields: dict[str, Any]) -> bool:
    return CACHE_CONTROL.encode() not in raw and not isinstance(fields.get("content"), list)


def _canonical(fields: dict[str, Any]) -> dict[str, Any]:
    """Less what clients move about: `cache_control`, and the list around a single text that carrying one needs."""
    canonical = {key: value for key, value in fields.items() if key != CACHE_CONTROL}
    content = canonical.get("content")
    if isinstance(content, list):
        parts = without_cache_control(content)
        text = lone_text(parts)
        canonical["content"] = parts if text is None else text
    return canonical
