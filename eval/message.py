"""One chat message as the evaluation reads it: its text, its tokens, its blocks.

Reads what was recorded and what was forwarded alike, so that both are measured with one rule. Knows OpenAI's chat
form and nothing of the compressor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

TOKENS_PER_MESSAGE = 4
CHARS_PER_TOKEN = 4
MARKER_ID = re.compile(rb"\[sluice [0-9a-f]+:")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a message that can carry a cache breakpoint."""

    num_tokens: float
    is_breakpoint: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One message, read once."""

    raw: bytes
    """Its JSON, as it is sent."""
    role: str
    content: str
    """Its text; the texts of several parts are joined by line breaks."""
    shown: bytes
    """All that a reader of the message sees, in UTF-8: the text and every string in its calls' arguments."""
    identity: bytes
    """16-byte digest of its JSON less `cache_control`: equal for messages that are forwarded identically."""
    likeness: bytes
    """As `identity`, less the ids in markers, which differ from tenant to tenant."""
    num_calls: int
    num_tokens: float
    """(characters of its text, its calls' names and arguments) / 4 + 4."""
    blocks: tuple[Block, ...]


def encode(message: dict[str, Any]) -> bytes:
    """Write a message's JSON as HTTP clients do: compact, UTF-8."""
    try:
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, left by a tool that truncates: only an escape carries it
        return json.dumps(message, separators=(",", ":")).encode()


def read_message(raw: bytes) -> Message:
    """Read a message's JSON.

    Raises:
        ValueError: it is not of OpenAI's chat form; the text says what is wrong.
    """
    data = json.loads(raw)
    if not isinstance(data, dict) or not isinstance(data.get("role"), str):
        raise ValueError("a message must be an object with a role")
    texts = _texts(data.get("content"))
    calls = data.get("tool_calls") or []
    made = calls_of(data)
    strings = [string for call in made for string in argument_strings(call.arguments)]
    call_chars = [len(call.name) + len(call.arguments) for call in made]
    marks = [*_marks(data, calls), *[False] * (len(made) - len(calls))]
    sizes = [len(text) for text in texts] + call_chars
    if not sizes:
        sizes, marks = [0], [any(marks) or "cache_control" in data]
    tokens = [size / CHARS_PER_TOKEN for size in sizes]
    tokens[-1] += TOKENS_PER_MESSAGE
    if "cache_control" in data:
        marks[-1] = True
    content = "\n".join(texts)
    spelled = json.dumps(less_cache_control(data), sort_keys=True).encode()
    identity = _digest(spelled)
    return Message(
        raw=raw,
        role=data["role"],
        content=content,
        shown="\n".join([content, *strings]).encode("utf-8", "surrogatepass"),
        identity=identity,
        likeness=_digest(MARKER_ID.sub(b"[sluice:", spelled)) if b"[sluice " in spelled else identity,
        num_calls=len(made),
        num_tokens=sum(tokens),
        blocks=tuple(Block(num, mark) for num, mark in zip(tokens, marks, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    id: str
    """Empty where it has none."""
    name: str
    arguments: str


def calls_of(data: dict[str, Any]) -> list[Call]:
    """A message's calls: of functions, of custom tools, and the single `function_call` of old.

    Raises:
        ValueError: they are not of OpenAI's chat form.
    """
    calls = data.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError("tool_calls must be a list")
    if legacy := data.get("function_call"):
        calls = [*calls, {"function": legacy}]
    return [_call(call) for call in calls]


def argument_strings(arguments: str) -> list[str]:
    """All strings among a call's arguments; the arguments themselves where they are no JSON."""
    try:
        return list(_strings(json.loads(arguments)))
    except ValueError:
        return [arguments]


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _texts(content: object) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise ValueError(f"content must be a text, a list of parts or null, not {type(content).__name__}")
    texts = []
    for part in content:
        if not isinstance(part, dict):
            raise ValueError("a content part must be an object")
        text = part.get("text", "")
        if not isinstance(text, str):
            raise ValueError("a content part's text must be a string")
        texts.append(text)
    return texts


def _call(call: object) -> Call:
    body = (call.get("function") or call.get("custom")) if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(body, dict):
        raise ValueError("a tool call must be an object with a function")
    name, arguments = body.get("name"), body.get("arguments", body.get("input", ""))
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise ValueError("a tool call's name and arguments must be strings")
    call_id = call.get("id")
    return Call(call_id if isinstance(call_id, str) else "", name, arguments)


def _marks(data: dict[str, Any], calls: list[Any]) -> list[bool]:
    content = data.get("content")
    parts = content if isinstance(content, list) else [{}] if isinstance(content, str) else []
    return ["cache_control" in part for part in [*parts, *calls]]


def less_cache_control(value: Any) -> Any:
    """The same JSON value without any `cache_control` in it, at any depth."""
    if isinstance(value, dict):
        return {key: less_cache_control(item) for key, item in value.items() if key != "cache_control"}
    if isinstance(value, list):
        return [less_cache_control(item) for item in value]
    return value
