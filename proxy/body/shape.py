"""The outer form of a wire's requests, and the check that a body has it. Knows no bytes: kinds of values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluice.proxy.errors import InvalidFieldError

KINDS = {"{": "an object", "[": "an array", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}
"""What a JSON value is, by its first character; else it is a number."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The outer form of a wire's requests: which fields have to be there, and of which kind."""

    list_field: str | None
    """Where the messages are; None where there are none."""
    required: frozenset[str] = frozenset()
    """Fields that a request must have."""
    takes_text: bool = False
    """Whether the list may be a string in its place."""


def check_shape(kinds: Mapping[str, str | None], shape: Shape) -> None:
    """Check the outer object, the kind of each value given by the first character that it has in JSON.

    Raises:
        InvalidFieldError: a field is not there, or of another kind.
    """
    if "model" in kinds or "model" in shape.required:
        _require("model", '"', kinds.get("model"))
    field = shape.list_field
    if field is None or (field not in kinds and field not in shape.required):
        return
    if not (shape.takes_text and kinds.get(field) in ('"', "n")):
        _require(field, "[", kinds.get(field))


def check_messages(kinds: Sequence[str | None], shape: Shape) -> None:
    """Check that each message is an object.

    Raises:
        InvalidFieldError: one is none.
    """
    for index, kind in enumerate(kinds):
        _require(f"{shape.list_field}[{index}]", "{", kind)


def _require(name: str, kind: str, found: str | None) -> None:
    """Check the kind of a value, each kind named by the first character that it has in JSON."""
    if found is None:
        raise InvalidFieldError(f"the body lacks {name!r}", param=name)
    if found != kind:
        raise InvalidFieldError(f"{name} must be {KINDS[kind]}, not {KINDS.get(found, 'a number')}", param=name)
