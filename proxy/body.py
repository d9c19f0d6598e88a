"""A request body: decode it once, and put other messages into it without touching the rest.

Knows JSON's outer form and where in the body each message lies; what a message says is the compressor's business.
Splicing by position is what keeps untouched messages, other fields, their order and whitespace the client's bytes.
"""

from __future__ import annotations

import itertools
import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sluice.proxy.errors import InvalidFieldError, InvalidJsonError

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages_decoder = msgspec.json.Decoder(list[msgspec.Raw])

_KINDS = {"{": "an object", "[": "an array", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body, decoded as far as the proxy needs it."""

    raw: bytes
    """The client's bytes."""
    model: str
    """The model asked for; empty where the request names none."""
    stream: bool
    """Whether events are asked for."""
    spans: tuple[tuple[int, int], ...] | None
    """Where each message lies in `raw`; None where a key stands twice, so that nothing may be spliced."""
    fields: Mapping[str, tuple[int, int]]
    """Where the value of each of the outer object's fields lies; empty where `spans` is None."""
    messages: tuple[bytes, ...]
    """The JSON of each message, as the client sent it; empty where `spans` is None."""
    _places: dict[bytes, int] = field(default_factory=dict, compare=False, repr=False)
    """Where what was looked for lies; -1 for nowhere."""

    def holds(self, part: bytes) -> bool:
        """Whether these bytes are in the body: looked for once, and in what is new of a conversation alone."""
        if part not in self._places:
            self._places[part] = self.raw.find(part)
        return self._places[part] >= 0

    def field(self, name: str) -> bytes:
        """The JSON of one of the outer object's fields; empty where it is not there."""
        start, end = self.fields.get(name, (0, 0))
        return self.raw[start:end]

    def splice(self, messages: Sequence[bytes], fields: Mapping[str, bytes] | None = None) -> bytes:
        """Put these messages in the place of the client's, one for one; all else stays byte for byte.

        Args:
            messages: one for each of the client's.
            fields: other fields to replace, each of which the client sent.
        """
        assert self.spans is not None
        assert len(messages) == len(self.spans), "one for one"
        # What was not touched is mostly the very same object.
        others = itertools.compress(itertools.count(), map(operator.is_not, messages, self.messages))
        values = [(self.spans[i], messages[i]) for i in others if messages[i] != self.messages[i]]
        values += [(self.fields[name], value) for name, value in (fields or {}).items()]
        if not values:
            return self.raw
        view, done = memoryview(self.raw), 0
        parts: list[bytes | memoryview] = []
        for (start, end), value in sorted(values):
            parts += (view[done:start], value)
            done = end
        parts.append(view[done:])
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Shape:
    """The outer form of a wire's requests: which fields have to be there, and of which kind."""

    list_field: str | None
    """Where the messages are; None where there are none."""
    required: frozenset[str] = frozenset()
    """Fields that a request must have."""
    takes_text: bool = False
    """Whether the list may be a string in its place."""


def parse_body(raw: bytes, shape: Shape) -> Body:
    """Decode a request's body, no deeper than its list of messages.

    Raises:
        InvalidJsonError: it is no JSON.
        InvalidFieldError: it has not this outer form.
    """
    _check_utf8(raw)
    try:
        values = _fields_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return _parse_slowly(raw, shape)
    _check_shape({name: _first_char(value) for name, value in values.items()}, shape)
    messages: list[msgspec.Raw] = []
    if shape.list_field is not None and _first_char(values.get(shape.list_field)) == "[":
        messages = _messages_decoder.decode(values[shape.list_field])
    _check_messages([_first_char(message) for message in messages], shape)
    stream = "stream" in values and bytes(values["stream"]) == b"true"
    model = msgspec.json.decode(values["model"], type=str) if "model" in values else ""
    return _body(raw, model, stream, _locate(raw, values, messages, shape))


def parse_on(raw: bytes, shape: Shape, known: Body, num_known: int) -> Body | None:
    """Decode a body of which the beginning is known from another: what is behind it, and no more.

    Args:
        raw: the body.
        shape: its outer form.
        known: another body, the same up to the end of its message `num_known`.
        num_known: at least 1.

    Returns:
        What `parse_body` would; None where only that can tell.
    """
    assert known.spans is not None
    assert shape.list_field is not None
    begun, cut = known.fields[shape.list_field][0], known.spans[num_known - 1][1]
    # The rest, made whole: the list with one element in the place of those that are known.
    opening = b'{"%s":[{}' % shape.list_field.encode()
    rest = raw[cut:]
    whole = opening + rest
    if not rest.isascii():
        try:
            rest.decode()
        except UnicodeDecodeError:
            return None
    try:
        values = _fields_decoder.decode(whole)
        messages = _messages_decoder.decode(values[shape.list_field])
        located = _locate(whole, values, messages, shape)
        head = {name: span for name, span in known.fields.items() if span[0] < begun}
        if located is None or not head.keys().isdisjoint(values):
            return None
        spans, fields = located
        kinds = {name: chr(raw[span[0]]) for name, span in head.items()}
        _check_shape({**kinds, **{name: _first_char(value) for name, value in values.items()}}, shape)
        _check_messages([_first_char(message) for message in messages], shape)
        model = known.model if "model" in head else ""
        if "model" in values:
            model = msgspec.json.decode(values["model"], type=str)
        stream = known.stream if "stream" in head else bytes(values.get("stream", b"")) == b"true"
    except (msgspec.DecodeError, RecursionError, InvalidFieldError):
        return None  # whoever reads it all says what is wrong, and where
    shift = cut - len(opening)
    new = [(start + shift, end + shift) for start, end in spans[1:]]
    found = {name: (start + shift, end + shift) for name, (start, end) in fields.items()}
    found[shape.list_field] = (begun, found[shape.list_field][1])
    kept = known.messages[:num_known]
    messages_in = kept + tuple(raw[start:end] for start, end in new)
    places = {
        part: at if 0 <= at <= cut - len(part) else raw.find(part, max(0, cut - len(part)))
        for part, at in known._places.items()
    }
    return Body(raw, model, stream, (*known.spans[:num_known], *new), {**head, **found}, messages_in, places)


def _body(raw: bytes, model: str, stream: bool, located: _Located | None) -> Body:
    if located is None:
        return Body(raw, model, stream, None, {}, ())
    spans, fields = located
    return Body(raw, model, stream, spans, fields, tuple(raw[start:end] for start, end in spans))


def _check_shape(kinds: Mapping[str, str | None], shape: Shape) -> None:
    """Check the outer object, the kind of each value given by the first character that it has in JSON."""
    if "model" in kinds or "model" in shape.required:
        _require("model", '"', kinds.get("model"))
    field = shape.list_field
    if field is None or (field not in kinds and field not in shape.required):
        return
    if not (shape.takes_text and kinds.get(field) in ('"', "n")):
        _require(field, "[", kinds.get(field))


def _check_messages(kinds: Sequence[str | None], shape: Shape) -> None:
    for index, kind in enumerate(kinds):
        _require(f"{shape.list_field}[{index}]", "{", kind)


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


def _parse_slowly(raw: bytes, shape: Shape) -> Body:
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
    _check_shape({name: _kind_of(value) for name, value in body.items()}, shape)
    messages = body.get(shape.list_field) if shape.list_field is not None else None
    _check_messages([_kind_of(message) for message in messages] if isinstance(messages, list) else [], shape)
    return _body(raw, body.get("model", ""), body.get("stream") is True, _locate_slowly(raw, shape))


def _kind_of(value: object) -> str:
    """First character that a decoded value has in JSON."""
    return {dict: "{", list: "[", str: '"', bool: "t", type(None): "n"}.get(type(value), "0")


def _refuse_constant(name: str) -> object:
    raise InvalidJsonError(f"the body is no JSON: it holds {name}")


# Numbers are not looked at; as float they have no limit on their digits.
_slow_decoder = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant)

_Located = tuple[tuple[tuple[int, int], ...], dict[str, tuple[int, int]]]
"""Where the messages lie, and where the fields do."""


def _locate_slowly(raw: bytes, shape: Shape) -> _Located | None:
    """Do what `_locate` does with the standard library's scanner. The body is valid."""
    text = raw.decode("latin-1")  # one character a byte: JSON's own characters are ASCII
    spans: list[tuple[int, int]] = []
    fields: dict[str, tuple[int, int]] = {}
    at = _after_space(raw, 0) + 1  # behind {
    while raw[(at := _after_space(raw, at)) : at + 1] != b"}":
        key, at = _slow_decoder.raw_decode(text, at)
        if key in fields:
            return None
        at = _after_space(raw, _after_space(raw, at) + 1)  # behind :
        if key == shape.list_field and raw[at : at + 1] == b"[":
            element = _after_space(raw, at + 1)  # behind [
            while raw[element : element + 1] != b"]":
                _, end = _slow_decoder.raw_decode(text, element)
                spans.append((element, end))
                end = _after_space(raw, end)
                element = _after_space(raw, end + 1) if raw[end : end + 1] == b"," else end
        _, end = _slow_decoder.raw_decode(text, at)
        fields[key] = (at, end)
        at = _after_space(raw, end)
        at += raw[at : at + 1] == b","
    return tuple(spans), fields


def _locate(
    raw: bytes, values: Mapping[str, msgspec.Raw], messages: Sequence[msgspec.Raw], shape: Shape
) -> _Located | None:
    """Find where each message and each field lies, by walking over the outer object's fields in order.

    A key that stands twice, or anything else that makes the walk differ from what was decoded, gives None.
    """
    at = _after_space(raw, 0) + 1  # behind {
    fields: dict[str, tuple[int, int]] = {}
    for index, (key, value) in enumerate(values.items()):
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
        fields[key] = (at, at + len(data))
        at = _after_space(raw, at + len(data))
    if not values:
        at = _after_space(raw, at)
    if raw[at : at + 1] != b"}":
        return None
    spans: list[tuple[int, int]] = []
    if messages:
        assert shape.list_field is not None
        at = fields[shape.list_field][0] + 1  # behind [
    for message in messages:
        at = _after_space(raw, at)
        data = bytes(message)
        if not raw.startswith(data, at):
            return None
        spans.append((at, at + len(data)))
        at = _after_space(raw, at + len(data)) + 1  # behind , or ]
    return tuple(spans), fields


def _is_key(quoted: bytes, key: str) -> bool:
    return quoted[1:-1] == key.encode() or msgspec.json.decode(quoted, type=str) == key


def _after_space(raw: bytes, at: int) -> int:
    match = _SPACE.match(raw, at)
    assert match is not None
    return match.end()
