"""Messages of OpenAI's `/v1/chat/completions`, as every provider that imitates it sends them too.

Tool results come as `tool` (or legacy `function`) messages, or, from text-only agents, in user messages; which of
those are tool output is decided later (`provenance/frames.py`). Unknown fields and parts pass unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

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
_CACHE_CONTROL = "cache_control"


class OpenAIChat:
    """The adapter (see `Dialect`)."""

    name = "openai-chat"

    def parse(self, raw: bytes) -> Message:
        """See `Dialect.parse`."""
        fields = _decode(raw)
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
        identity = blake2b(_encode(canonical), digest_size=16).digest()
        return Message(role=role, texts=texts, calls=calls, identity=identity, num_chars=num_chars)

    def render(self, raw: bytes, texts: Mapping[int, str]) -> bytes:
        """See `Dialect.render`."""
        fields = _canonical(_decode(raw))
        content = fields.get("content")
        if isinstance(content, str):
            fields["content"] = texts.get(0, content)
        elif isinstance(content, list):
            for index, part in enumerate(part for part in content if _is_text(part)):
                part["text"] = texts.get(index, part["text"])
        return _encode(fields)

    def carry(self, raw: bytes, rendition: bytes) -> bytes:
        """See `Dialect.carry`."""
        if _CACHE_CONTROL.encode() not in raw:
            return rendition
        sent, fields = _decode(raw), _decode(rendition)
        carried = False
        if _CACHE_CONTROL in sent:
            fields[_CACHE_CONTROL] = sent[_CACHE_CONTROL]
            carried = True
        sent_parts = sent.get("content")
        if isinstance(sent_parts, list) and any(
            _CACHE_CONTROL in part for part in sent_parts if isinstance(part, dict)
        ):
            content = fields.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for sent_part, part in zip(sent_parts, parts or [], strict=True):
                if isinstance(sent_part, dict) and _CACHE_CONTROL in sent_part:
                    part[_CACHE_CONTROL] = sent_part[_CACHE_CONTROL]
            fields["content"] = parts
            carried = True
        return _encode(fields) if carried else rendition


OPENAI_CHAT = OpenAIChat()
"""The adapter has no state: one serves all."""


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        fields = _decode_slowly(raw)
    if not isinstance(fields, dict):
        raise MalformedMessageError(f"a message is a JSON object, not {type(fields).__name__}")
    return fields


def _decode_slowly(raw: bytes) -> object:
    """Decode what msgspec refuses and the standard library reads: half a surrogate pair, left by a cut in an emoji."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not JSON: {error}") from error


def _encode(fields: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(fields)
    except UnicodeEncodeError:  # half a surrogate pair can be written as an escape alone
        return json.dumps(fields, separators=(",", ":")).encode()


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
            arguments=arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode(),
        )


def _is_canonical(raw: bytes, fields: dict[str, Any]) -> bool:
    return _CACHE_CONTROL.encode() not in raw and not isinstance(fields.get("content"), list)


def _canonical(fields: dict[str, Any]) -> dict[str, Any]:
    """Less what clients move about: `cache_control`, and the list around a single text that carrying one needs."""
    canonical = {key: value for key, value in fields.items() if key != _CACHE_CONTROL}
    content = canonical.get("content")
    if isinstance(content, list):
        parts = [
            {key: value for key, value in part.items() if key != _CACHE_CONTROL} if isinstance(part, dict) else part
            for part in content
        ]
        only = parts[0] if len(parts) == 1 else None
        lone_text = isinstance(only, dict) and _is_text(only) and only.keys() == {"type", "text"}
        canonical["content"] = only["text"] if lone_text and only is not None else parts
    return canonical
