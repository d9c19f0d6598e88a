"""Takes thinking that an answer was translated from out of requests to an upstream that it did not come from.

A conversation may go back to Anthropic after another upstream has served some of its turns: a signature that is ours is
none to Anthropic, which refuses the request for it. All else stays byte for byte.
"""

from __future__ import annotations

from sluice.proxy.body import Shape, parse_body
from sluice.proxy.errors import RequestError
from sluice.proxy.translation.json_codec import decode, encode, mapping, objects, text
from sluice.proxy.translation.thinking import SIGNATURE

_MESSAGES = Shape("messages")
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
