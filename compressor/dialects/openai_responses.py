"""Items of OpenAI's `/v1/responses`.

Each item is a message of the transcript: an `output` answers the `call` with its `call_id`. Reasoning, encrypted
content, compaction items, what the server's own tools leave, and every item that is not known here pass unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from sluice.compressor.dialects.json_message import arguments_text, decode, encode
from sluice.compressor.errors import MalformedMessageError
from sluice.compressor.types import Message, Role, Text, ToolCall

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXT_PARTS = ("input_text", "output_text", "text")
_STREAMS = ("stdout", "stderr")
"""What an entry of a `shell_call_output` holds."""
_OUTPUTS = (
    "function_call_output",
    "custom_tool_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
)


class OpenAIResponses:
    """The adapter (see `Dialect`)."""

    name = "openai-responses"

    def parse(self, raw: bytes) -> Message:
        """See `Dialect.parse`."""
        item = decode(raw)
        type_ = item.get("type", "message")
        texts: tuple[Text, ...] = ()
        calls: tuple[ToolCall, ...] = ()
        # What is not known was written by the model, as a rule, and holds no text that anything may lean on.
        role: Role = "assistant"
        if type_ == "message":
            known = _ROLES.get(str(item.get("role")))
            if known is None:
                raise MalformedMessageError(f"role is {item.get('role')!r}")
            role = known
            texts = tuple(Text(text) for text in _content(item.get("content")))
        elif type_ in _OUTPUTS:
            role = "tool"
            call_id = item.get("call_id")
            call_id = call_id if isinstance(call_id, str) else None
            texts = tuple(Text(text, call_id, is_result=True) for text in _content(item.get("output")))
        elif (call := _call(item)) is not None:
            calls = (call,)
        num_chars = sum(len(text.text) for text in texts) + sum(len(call.name) + len(call.arguments) for call in calls)
        return Message(role, texts, calls, blake2b(encode(item), digest_size=16).digest(), num_chars)

    def render(self, raw: bytes, texts: Mapping[int, str]) -> bytes:
        """See `Dialect.render`."""
        item = decode(raw)
        field = "output" if item.get("type") in _OUTPUTS else "content"
        if isinstance(item.get(field), str):
            item[field] = texts.get(0, item[field])
            return encode(item)
        slots = [(part, key) for part in item.get(field) or [] for key in _text_keys(part)]
        for index, (part, key) in enumerate(slots):
            part[key] = texts.get(index, part[key])
        return encode(item)

    def carry(self, raw: bytes, rendition: bytes) -> bytes:
        """See `Dialect.carry`. This wire has no `cache_control`."""
        return rendition


OPENAI_RESPONSES = OpenAIResponses()
"""The adapter has no state: one serves all."""


def _content(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from (part[key] for key in _text_keys(part))
    elif content is not None:
        raise MalformedMessageError(f"content is {type(content).__name__}, not text or parts")


def _text_keys(part: object) -> tuple[str, ...]:
    """The fields of a part that hold text."""
    if not isinstance(part, dict):
        return ()
    keys = ("text",) if part.get("type") in _TEXT_PARTS else _STREAMS if "outcome" in part else ()
    return tuple(key for key in keys if isinstance(part.get(key), str))


def _call(item: dict[str, Any]) -> ToolCall | None:
    """The call that an item makes; None where it makes none that the client answers."""
    call_id = str(item.get("call_id") or "")
    action = item.get("action")
    match item.get("type"):
        case "function_call":
            return ToolCall(call_id, str(item.get("name") or ""), arguments_text(item.get("arguments", "")))
        case "custom_tool_call":
            return ToolCall(call_id, str(item.get("name") or ""), arguments_text(item.get("input", "")))
        case "local_shell_call":
            return ToolCall(call_id, "local_shell", arguments_text(action or {}))
        case "shell_call":
            commands = action.get("commands") if isinstance(action, dict) else None
            command = "\n".join(str(command) for command in commands) if isinstance(commands, list) else ""
            return ToolCall(call_id, "shell", arguments_text({"command": command}))
        case "apply_patch_call":
            return ToolCall(call_id, "apply_patch", arguments_text(item.get("operation") or {}))
    return None
