"""Decodes a request's body once, no deeper than its list of messages: what one says is the compressor's business."""

from __future__ import annotations

import json

import msgspec

from sluice.proxy.body.body import Body
from sluice.proxy.body.locate import Located, locate, locate_slowly, slow_decoder
from sluice.proxy.body.shape import KINDS, Shape, check_messages, check_shape
from sluice.proxy.errors import InvalidFieldError, InvalidJsonError

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages_decoder = msgspec.json.Decoder(list[msgspec.Raw])


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
    check_shape({name: _first_char(value) for name, value in values.items()}, shape)
    messages: list[msgspec.Raw] = []
    if shape.list_field is not None and _first_char(values.get(shape.list_field)) == "[":
        messages = _messages_decoder.decode(values[shape.list_field])
    check_messages([_first_char(message) for message in messages], shape)
    stream = "stream" in values and bytes(values["stream"]) == b"true"
    model = msgspec.json.decode(values["model"], type=str) if "model" in values else ""
    return _body(raw, model, stream, locate(raw, values, messages, shape))


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
        located = locate(whole, values, messages, shape)
        head = {name: span for name, span in known.fields.items() if span[0] < begun}
        if located is None or not head.keys().isdisjoint(values):
            return None
        spans, fields = located
        kinds = {name: chr(raw[span[0]]) for name, span in head.items()}
        check_shape({**kinds, **{name: _first_char(value) for name, value in values.items()}}, shape)
        check_messages([_first_char(message) for message in messages], shape)
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


def _body(raw: bytes, model: str, stream: bool, located: Located | None) -> Body:
    if located is None:
        return Body(raw, model, stream, None, {}, ())
    spans, fields = located
    return Body(raw, model, stream, spans, fields, tuple(raw[start:end] for start, end in spans))


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
        body = slow_decoder.decode(raw.decode())
    except json.JSONDecodeError as error:
        raise InvalidJsonError(
            f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos})"
        ) from None
    except RecursionError:
        raise InvalidJsonError("the body is nested too deeply") from None
    if not isinstance(body, dict):
        raise InvalidFieldError(f"the body must be an object, not {KINDS.get(_kind_of(body), 'a number')}")
    check_shape({name: _kind_of(value) for name, value in body.items()}, shape)
    messages = body.get(shape.list_field) if shape.list_field is not None else None
    check_messages([_kind_of(message) for message in messages] if isinstance(messages, list) else [], shape)
    return _body(raw, body.get("model", ""), body.get("stream") is True, locate_slowly(raw, shape))


def _kind_of(value: object) -> str:
    """First character that a decoded value has in JSON."""
    return {dict: "{", list: "[", str: '"', bool: "t", type(None): "n"}.get(type(value), "0")
