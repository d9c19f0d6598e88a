"""Conversations in chat form, said in every dialect as its agents say them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sluice.compressor import ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES, Dialect
from tests.compressor.conversations import Json, call, file_lines, numbered, result

EPHEMERAL = {"type": "ephemeral"}


@dataclass(frozen=True)
class Spoken:
    """One dialect, and how a chat conversation is said in it."""

    dialect: Dialect
    say: Callable[[Sequence[Json]], list[Json]]


def as_messages(chat: Sequence[Json]) -> list[Json]:
    """As Claude Code sends it: thinking before each call, and a breakpoint on the newest message alone."""
    messages: list[Json] = []
    for message in chat:
        if message["role"] == "tool":
            content = message["content"]
            block: Json = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": content}
            if len(messages) % 3 == 0:
                image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
                block["content"] = [{"type": "text", "text": content}, image]
            messages.append({"role": "user", "content": [block]})
        elif message.get("tool_calls"):
            blocks: list[Json] = [{"type": "thinking", "thinking": "hm …", "signature": "c2ln"}]
            for made in message["tool_calls"]:
                function = made["function"]
                arguments = json.loads(function["arguments"])
                blocks.append({"type": "tool_use", "id": made["id"], "name": function["name"], "input": arguments})
            messages.append({"role": "assistant", "content": blocks})
        else:
            messages.append({"role": message["role"], "content": message["content"]})
    newest = messages[-1]
    if isinstance(newest["content"], str):
        newest["content"] = [{"type": "text", "text": newest["content"]}]
    newest["content"][-1]["cache_control"] = EPHEMERAL
    return messages


def as_items(chat: Sequence[Json]) -> list[Json]:
    """As Codex sends it: reasoning before each call, outputs as items of their own."""
    items: list[Json] = []
    for index, message in enumerate(chat):
        if message["role"] == "tool":
            output: Any = message["content"]
            if index % 3 == 0:
                output = [{"type": "input_text", "text": output}, {"type": "input_image", "image_url": "data:x"}]
            items.append({"type": "function_call_output", "call_id": message["tool_call_id"], "output": output})
        elif message.get("tool_calls"):
            items.append({"type": "reasoning", "id": f"rs_{index}", "summary": [], "encrypted_content": "gAAA"})
            calls = message["tool_calls"]
            items += [{"type": "function_call", "call_id": made["id"], **made["function"]} for made in calls]
        else:
            part = {"type": "input_text", "text": message["content"]}
            items.append({"type": "message", "role": message["role"], "content": [part]})
    return items


SPOKEN = {
    "chat": Spoken(OPENAI_CHAT, list),
    "messages": Spoken(ANTHROPIC_MESSAGES, as_messages),
    "responses": Spoken(OPENAI_RESPONSES, as_items),
}

READ_TWICE: list[Json] = [
    {"role": "user", "content": "fix it"},
    call("c1", "Read", file_path="a.py"),
    result("c1", numbered(file_lines(40))),
    call("c2", "Read", file_path="a.py"),
    result("c2", numbered(file_lines(40))),
]


def without_cache_control(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_cache_control(inner) for key, inner in value.items() if key != "cache_control"}
    return [without_cache_control(inner) for inner in value] if isinstance(value, list) else value


def prompt_of(messages: Sequence[bytes], dialect: Dialect) -> list[bytes]:
    """What a provider's cache sees of messages, byte for byte; the order of keys is part of it.

    Anthropic's breakpoints, which move, are none of it, and a lone text is the same as a string.
    """
    return [_less_breakpoints(raw) for raw in messages] if dialect is ANTHROPIC_MESSAGES else list(messages)


def _less_breakpoints(raw: bytes) -> bytes:
    message = without_cache_control(json.loads(raw))
    content = message["content"]
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
        message["content"] = content[0]["text"]
    return json.dumps(message).encode()
