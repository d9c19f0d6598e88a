"""Messages of Anthropic's `/v1/messages`.

Tool results are blocks of user messages, calls are blocks of the assistant's. Thinking, signatures, images, documents
and all that the server's own tools leave pass unchanged; so does every block that is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from sluice.compressor import replies
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

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


class AnthropicMessages:
    """The adapter (see `Dialect`)."""

    name = "anthropic-messages"

    def parse(self, raw: bytes) -> Message:
        """See `Dialect.parse`."""
        fields = decode(raw)
        role = _ROLES.get(str(fields.get("role")))
        if role is None:
            raise MalformedMessageError(f"role is {fields.get('role')!r}")
        content = fields.get("content")
        if not isinstance(content, str | list):
            raise MalformedMessageError(f"content is {type(content).__name__}, not text or blocks")
        texts = tuple(Text(text, call_id, is_result) for text, call_id, is_result in _texts(content))
        if role == "user" and any(text.is_result for text in texts):
            role = "tool"
        calls = tuple(_calls(content)) if role == "assistant" else ()
        num_chars = sum(len(text.text) for text in texts) + sum(len(call.name) + len(call.arguments) for call in calls)
        canonical = _canonical(fields)
        pieces = tuple(_pieces(canonical)) if role == "assistant" else ()
        identity = replies.identity(pieces) if pieces else _digest(canonical)
        return Message(role, texts, calls, identity, num_chars, pieces)

    def render(self, raw: bytes, texts: Mapping[int, str]) -> bytes:
        """See `Dialect.render`."""
        fields = _canonical(decode(raw))
        if isinstance(fields["content"], str):
            fields["content"] = texts.get(0, fields["content"])
            return encode(fields)
        index = 0
        for block in fields["content"]:
            if _is_text(block):
                block["text"] = texts.get(index, block["text"])
                index += 1
            elif _is_result(block) and isinstance(block.get("content"), str):
                block["content"] = texts.get(index, block["content"])
                index += 1
            elif _is_result(block):
                for part in filter(_is_text, block.get("content") or []):
                    part["text"] = texts.get(index, part["text"])
                    index += 1
        return encode(fields)

    def carry(self, raw: bytes, rendition: bytes) -> bytes:
        """See `Dialect.carry`."""
        if CACHE_CONTROL.encode() not in raw:
            return rendition
        sent, fields = decode(raw), decode(rendition)
        carried = _carry_onto(fields, sent)
        content = fields["content"]
        if isinstance(sent.get("content"), list):
            # What could as well be text is kept as text; a block is needed to carry anything.
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for sent_block, block in zip(sent["content"], blocks, strict=True):
                if not isinstance(sent_block, dict):
                    continue
                carried |= _carry_onto(block, sent_block)
                if _is_result(sent_block) and isinstance(sent_block.get("content"), list):
                    for sent_part, part in zip(sent_block["content"], block["content"], strict=True):
                        carried |= isinstance(sent_part, dict) and _carry_onto(part, sent_part)
            if carried:
                fields["content"] = blocks
        return encode(fields) if carried else rendition


ANTHROPIC_MESSAGES = AnthropicMessages()
"""The adapter has no state: one serves all."""


def _texts(content: str | list[Any]) -> Iterator[tuple[str, str | None, bool]]:
    """Each text, the call that it answers, and whether it is tool output."""
    if isinstance(content, str):
        yield content, None, False
        return
    for block in content:
        if _is_text(block):
            yield block["text"], None, False
        elif _is_result(block):
            call_id = block.get("tool_use_id")
            call_id = call_id if isinstance(call_id, str) else None
            inner = block.get("content")
            if isinstance(inner, str):
                yield inner, call_id, True
            elif isinstance(inner, list):
                yield from ((part["text"], call_id, True) for part in inner if _is_text(part))
            elif inner is not None:
                raise MalformedMessageError(f"a tool_result's content is {type(inner).__name__}")


def _is_text(block: object) -> bool:
    return isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)


def _is_result(block: object) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_result"


def _calls(content: str | list[Any]) -> Iterator[ToolCall]:
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_use":
            yield ToolCall(
                id=str(block.get("id") or ""),
                name=str(block.get("name") or ""),
                arguments=arguments_text(block.get("input", {})),
            )


def _canonical(fields: dict[str, Any]) -> dict[str, Any]:
    """Less what clients move about: `cache_control`, and the list around a single text that carrying one needs."""
    canonical = {key: value for key, value in fields.items() if key != CACHE_CONTROL}
    if isinstance(canonical["content"], list):
        blocks = without_cache_control(canonical["content"])
        for block in blocks:
            if _is_result(block) and isinstance(block.get("content"), list):
                block["content"] = without_cache_control(block["content"])
        text = lone_text(blocks)
        canonical["content"] = blocks if text is None else text
    return canonical


def _pieces(canonical: dict[str, Any]) -> Iterator[bytes]:
    """Digests of an assistant message's blocks, and of what else it holds: clients spread blocks over messages."""
    content = canonical["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    yield from map(_digest, blocks)
    others = {key: value for key, value in canonical.items() if key not in ("role", "content")}
    if others:
        yield _digest(others)


def _digest(value: object) -> bytes:
    return blake2b(encode(value), digest_size=16).digest()


def _carry_onto(fields: Any, sent: dict[str, Any]) -> bool:
    if CACHE_CONTROL not in sent:
        return False
    fields[CACHE_CONTROL] = sent[CACHE_CONTROL]
    return True
