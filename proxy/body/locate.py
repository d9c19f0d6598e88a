"""Where in a body each message and each field lies. Decodes nothing that it need not, and checks nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import msgspec

from sluice.proxy.body.shape import Shape
from sluice.proxy.errors import InvalidJsonError

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

Located = tuple[tuple[tuple[int, int], ...], dict[str, tuple[int, int]]]
"""Where the messages lie, and where the fields do."""


def locate(
    raw: bytes, values: Mapping[str, msgspec.Raw], messages: Sequence[msgspec.Raw], shape: Shape
) -> Located | None:
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


def locate_slowly(raw: bytes, shape: Shape) -> Located | None:
    """Do what `locate` does with the standard library's scanner. The body is valid."""
    text = raw.decode("latin-1")  # one character a byte: JSON's own characters are ASCII
    spans: list[tuple[int, int]] = []
    fields: dict[str, tuple[int, int]] = {}
    at = _after_space(raw, 0) + 1  # behind {
    while raw[(at := _after_space(raw, at)) : at + 1] != b"}":
        key, at = slow_decoder.raw_decode(text, at)
        if key in fields:
            return None
        at = _after_space(raw, _after_space(raw, at) + 1)  # behind :
        if key == shape.list_field and raw[at : at + 1] == b"[":
            element = _after_space(raw, at + 1)  # behind [
            while raw[element : element + 1] != b"]":
                _, end = slow_decoder.raw_decode(text, element)
                spans.append((element, end))
                end = _after_space(raw, end)
                element = _after_space(raw, end + 1) if raw[end : end + 1] == b"," else end
        _, end = slow_decoder.raw_decode(text, at)
        fields[key] = (at, end)
        at = _after_space(raw, end)
        at += raw[at : at + 1] == b","
    return tuple(spans), fields


def _refuse_constant(name: str) -> object:
    raise InvalidJsonError(f"the body is no JSON: it holds {name}")


# Numbers are not looked at; as float they have no limit on their digits.
slow_decoder = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant)


def _is_key(quoted: bytes, key: str) -> bool:
    return quoted[1:-1] == key.encode() or msgspec.json.decode(quoted, type=str) == key


def _after_space(raw: bytes, at: int) -> int:
    match = _SPACE.match(raw, at)
    assert match is not None
    return match.end()
