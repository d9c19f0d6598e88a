"""Takes thinking that an answer was translated from out of requests to an upstream that it did not come from.

A conversation may go back to its provider after another upstream has served some of its turns: a signature that is ours
is none to Anthropic, and OpenAI knows no reasoning but its own, which it encrypts. All else stays byte for byte.
"""

from __future__ import annotations

from sluice.proxy.body import Shape, parse_body
from sluice.proxy.errors import RequestError
from sluice.proxy.translation.json_codec import decode, encode, mapping, objects, text
from sluice.proxy.translation.thinking import SIGNATURE

_MESSAGES = Shape("messages")
_ITEMS = Shape("input", takes_text=True)
_MARK = b'"' + SIGNATURE.encode()
_EMPTY = {"type": "text", "text": "(empty)"}
"""Anthropic refuses messages without content."""


def without_foreign_thinking(body: bytes) -> bytes:
    """A Messages request less the thinking blocks whose signature is ours; the same bytes where there is none.

    Args:
        body: of the request, as it is to be sent.
    """
    if _MARK not in body:
        return body
    try:
        request = parse_body(body, _MESSAGES)
    except RequestError:
        return body
    if request.spans is None:
        return body
    return request.splice([_cleaned(message) if _MARK in message else message for message in request.messages])


def without_foreign_reasoning(body: bytes) -> bytes:
    """A Responses request less the reasoning that stands in it in plain words, as none of OpenAI's does.

    Args:
        body: of the request, as it is to be sent to OpenAI.
    """
    if b'"reasoning_text"' not in body:
        return body
    try:
        request = parse_body(body, _ITEMS)
    except RequestError:
        return body
    items = request.messages
    kept = [item for item in items if b'"reasoning_text"' not in item or not _is_plain_reasoning(item)]
    if request.spans is None or len(kept) == len(items):
        return body
    start, end = request.fields["input"]
    return body[:start] + b"[" + b",".join(kept) + b"]" + body[end:]


def _is_plain_reasoning(item: bytes) -> bool:
    try:
        fields = mapping(decode(item))
    except ValueError:
        return False
    return fields.get("type") == "reasoning" and not fields.get("encrypted_content")


def _cleaned(message: bytes) -> bytes:
    try:
        fields = mapping(decode(message))
    except ValueError:
        return message
    content = fields.get("content")
    blocks = objects(content)
    kept = [block for block in blocks if not _is_ours(block)]
    if len(kept) == len(blocks) or not isinstance(content, list) or len(blocks) != len(content):
        return message
    return encode({**fields, "content": kept or [_EMPTY]})


def _is_ours(block: dict[str, object]) -> bool:
    return block.get("type") == "thinking" and text(block.get("signature")).startswith(SIGNATURE)
