"""A request body: read it under a cap, decode it once, and put other messages into it without touching the rest.

Knows JSON's outer form and where in the body each message lies; what a message says is the compressor's business.
Splicing by position is what keeps untouched messages, other fields, their order and whitespace the client's bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from starlette.types import Receive

from sluice.proxy.errors import BodyTooLargeError, InvalidFieldError, InvalidJsonError

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages_decoder = msgspec.json.Decoder(list[msgspec.Raw])

_KINDS = {"{": "an object", "[": "an array", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}


class ClientGoneError(Exception):
    """The client hung up while its request was being read. Nobody is there to be answered."""


async def read_body(receive: Receive, content_length: str | None, max_body_bytes: int) -> bytes:
    """Read a request body to its end.

    Args:
        receive: ASGI's receive.
        content_length: what the client says; it may lie, so that what comes is counted as well.
        max_body_bytes: the cap.

    Raises:
        BodyTooLargeError: the body is, or says it is, larger than the cap.
        ClientGoneError: the client hung up.
    """
    if content_length is not None and content_length.isdecimal() and int(content_length) > max_body_bytes:
        raise BodyTooLargeError(max_body_bytes)
    parts: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes > max_body_bytes:
            raise BodyTooLargeError(max_body_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A chat request's body, decoded as far as the proxy needs it."""

    raw: bytes
    """The client's bytes."""
    model: str
    """The model asked for."""
    stream: bool
    """Whether events are asked for."""
    spans: tuple[tuple[int, int], ...] | None
    """Where each message lies in `raw`; None where a key stands twice, so that nothing may be spliced."""
    tools: bytes = b""
    """JSON of the tools that are offered: a provider's cache depends on them as it does on the model."""

    @property
    def messages(self) -> list[bytes]:
        """The JSON of each message, as the client sent it."""
        return [self.raw[start:end] for start, end in self.spans or ()]

    def splice(self, messages: Sequence[bytes]) -> bytes:
        """Put these messages in the place of the client's, one for one; all else stays byte for byte."""
        assert self.spans is not None
        parts: list[bytes] = []
        done = 0
        for (start, end), message in zip(self.spans, messages, strict=True):
            if message != self.raw[start:end]:
                parts += (self.raw[done:start], message)
                done = end
        if not parts:
            return self.raw
        parts.append(self.raw[done:])
        return b"".join(parts)


def parse_chat(raw: bytes) -> ChatBody:
    """Decode a chat request's body, no deeper than its list of messages.

    Raises:
        InvalidJsonError: it is no JSON.
        InvalidFieldError: it has not the outer form of a chat request.
    """
    _check_utf8(raw)
    try:
        fields = _fields_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return _parse_slowly(raw)
    _require("model", '"', _first_char(fields.get("model")))
    _require("messages", "[", _first_char(fields.get("messages")))
    messages = _messages_decoder.decode(fields["messages"])
    for index, message in enumerate(messages):
        _require(f"messages[{index}]", "{", _first_char(message))
    stream = "stream" in fields and bytes(fields["stream"]) == b"true"
    model = msgspec.json.decode(fields["model"], type=str)
    return ChatBody(raw, model, stream, _locate(raw, fields, messages), bytes(fields.get("tools", b"")))


def _require(name: str, kind: str, found: str | None) -> None:
    """Check the kind of a value, each kind named by the first character that it has in JSON."""
    if found is None:
        raise InvalidFieldError(f"the body lacks {name!r}", param=name)
    if found != kind:
        raise InvalidFieldError(f"{name} must be {_KINDS[kind]}, not {_KINDS.get(found, 'a number')}", param=name)


def _first_char(value: msgspec.Raw | None) -> str | None:
    return None if value is None else chr(memoryview(value)[0])


def _check_utf8(raw: bytes) -> None:
    if raw.isascii():
        return
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"the body is no JSON: byte {error.start} is not UTF-8") from None


def _parse_slowly(raw: bytes) -> ChatBody:
    """Parse what msgspec refuses: name the fault, or, where the standard library reads it, take it apart with that.

    Escaped lone surrogates are the case that matters: agents in JavaScript cut text in the middle of an emoji.
    """
    try:
        body = _slow_decoder.decode(raw.decode())
    except json.JSONDecodeError as error:
        raise InvalidJsonError(
            f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos})"
        ) from None
    except RecursionError:
        raise InvalidJsonError("the body is nested too deeply") from None
    if not isinstance(body, dict):
        raise InvalidFieldError(f"the body must be an object, not {_KINDS.get(_kind_of(body), 'a number')}")
    _require("model", '"', _kind_of(body["model"]) if "model" in body else None)
    _require("messages", "[", _kind_of(body["messages"]) if "messages" in body else None)
    for index, message in enumerate(body["messages"]):
        _require(f"messages[{index}]", "{", _kind_of(message))
    located = _locate_slowly(raw)
    spans, tools = located if located is not None else (None, b"")
    return ChatBody(raw, body["model"], body.get("stream") is True, spans, tools)


def _kind_of(value: object) -> str:
    """First character that a decoded value has in JSON."""
    return {dict: "{", list: "[", str: '"', bool: "t", type(None): "n"}.get(type(value), "0")


def _refuse_constant(name: str) -> object:
    raise InvalidJsonError(f"the body is no JSON: it holds {name}")


# Numbers are not looked at; as float they have no limit on their digits.
_slow_decoder = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant)


def _locate_slowly(raw: bytes) -> tuple[tuple[tuple[int, int], ...], bytes] | None:
    """Do what `_locate` does, and find the tools, with the standard library's scanner. The body is valid."""
    text = raw.decode("latin-1")  # one character a byte: JSON's own characters are ASCII
    spans: list[tuple[int, int]] = []
    keys: set[str] = set()
    tools = b""
    at = _after_space(raw, 0) + 1  # behind {
    while True:
        key, at = _slow_decoder.raw_decode(text, _after_space(raw, at))
        if key in keys:
            return None
        keys.add(key)
        at = _after_space(raw, _after_space(raw, at) + 1)  # behind :
        if key == "messages":
            element = _after_space(raw, at + 1)  # behind [
            while raw[element : element + 1] != b"]":
                _, end = _slow_decoder.raw_decode(text, element)
                spans.append((element, end))
                end = _after_space(raw, end)
                element = _after_space(raw, end + 1) if raw[end : end + 1] == b"," else end
        _, end = _slow_decoder.raw_decode(text, at)
        if key == "tools":
            tools = raw[at:end]
        at = _after_space(raw, end)
        if raw[at : at + 1] == b"}":
            return tuple(spans), tools
        at += 1  # behind ,


def _locate(
    raw: bytes, fields: Mapping[str, msgspec.Raw], messages: Sequence[msgspec.Raw]
) -> tuple[tuple[int, int], ...] | None:
    """Find where each message lies, by walking over the outer object's fields in order.

    A key that stands twice, or anything else that makes the walk differ from what was decoded, gives None.
    """
    at = _after_space(raw, 0) + 1  # behind {
    messages_at = -1
    for index, (key, value) in enumerate(fields.items()):
        if index:
            if raw[at : at + 1] != b",":
                return None
            at += 1
        string = _STRING.match(raw, _after_space(raw, at))
        if string is None or not _is_key(string[0], key):
            return None
        at = _after_space(raw, _after_space(raw, string.end()) + 1)  # behind :
        data = bytes(value)
        if not raw.startswith(data, at):
            return None
        if key == "messages":
            messages_at = at
        at = _after_space(raw, at + len(data))
    if raw[at : at + 1] != b"}" or messages_at < 0:
        return None
    spans: list[tuple[int, int]] = []
    at = messages_at + 1  # behind [
    for message in messages:
        at = _after_space(raw, at)
        data = bytes(message)
        if not raw.startswith(data, at):
            return None
        spans.append((at, at + len(data)))
        at = _after_space(raw, at + len(data)) + 1  # behind , or ]
    return tuple(spans)


def _is_key(quoted: bytes, key: str) -> bool:
    return quoted[1:-1] == key.encode() or msgspec.json.decode(quoted, type=str) == key


def _after_space(raw: bytes, at: int) -> int:
    match = _SPACE.match(raw, at)
    assert match is not None
    return match.end()
