"""What a file's definitions are called, and what kind of place in it they make. Plain functions of its definitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from sluice.compressor.syntax import Definition

_TYPE_KINDS = frozenset(
    {"class", "struct", "interface", "trait", "module", "protocol", "object", "impl", "enum", "type", "namespace"}
)
_MAX_NESTING = 6
_TEST_NAME = re.compile(r"^(tests?$|test_)|Tests?$|TestCase$|_tests?$")


class Place(NamedTuple):
    """What lines of a file are part of."""

    name: str
    """Of the definition, in lower case and without what qualifies it."""
    is_type: bool
    nesting: int
    """Definitions around it, 6 at most."""
    is_start: bool
    """Whether the definition begins in these lines."""
    in_tests: bool
    """Whether it, or one around it, is called like a test."""


def place_in(definitions: Sequence[Definition], index: int, start: int, end: int) -> Place:
    """The place that lines `start` to `end` are, which belong to the definition at `index`."""
    owner = definitions[index]
    nesting, parent = 0, owner.parent
    in_tests = owner.kind == "test" or _is_test_name(owner.name)
    while parent >= 0 and nesting < _MAX_NESTING:
        in_tests = in_tests or _is_test_name(definitions[parent].name)
        nesting, parent = nesting + 1, definitions[parent].parent
    is_start = start <= owner.start <= end
    return Place(last_part(owner.name).lower(), owner.kind in _TYPE_KINDS, nesting, is_start, in_tests)


def defined_names(definitions: Sequence[Definition]) -> dict[str, tuple[bool, bool]]:
    """Names in lower case → whether a type is called so, and whether it stands outermost."""
    names: dict[str, tuple[bool, bool]] = {}
    for definition in definitions:
        if definition.kind == "impl":  # says what is implemented, not what is defined
            continue
        name = last_part(definition.name).lower()
        is_type, is_outer = names.get(name, (False, False))
        names[name] = (is_type or definition.kind in _TYPE_KINDS, is_outer or definition.parent < 0)
    return names


@lru_cache(maxsize=65_536)
def last_part(name: str) -> str:
    """`Foo` of `a::b.Foo<T>`: the name itself."""
    return re.split(r"[<(\[ ]", name)[0].replace("::", ".").replace("#", ".").rsplit(".", 1)[-1].strip()


@lru_cache(maxsize=65_536)
def _is_test_name(name: str) -> bool:
    return _TEST_NAME.search(name) is not None
