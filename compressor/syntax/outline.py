"""A text's outline: its definitions (kind, name, lines, nesting, signature) and its statements' line ranges.

Works on whole files and on fragments (the grammars recover from errors; a fragment's common indentation is taken off
first). Lines are counted from 1 and both ends belong to a range. Walks only nodes that span several lines and their
children, which is several times faster than visiting all, and misses nothing that is told apart by lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from sluice.compressor.syntax.languages import Language
from sluice.compressor.syntax.naming import conditional_definition, definition_name

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

MAX_BYTES = 1_000_000
"""Longer texts are not parsed: a file this long is data, and parsing is linear only on well-formed input."""
MAX_LINE_BYTES = 20_000
"""Texts with a longer line are minified or data; not parsed."""
MAX_SIGNATURE_LINES = 12
_CONTAINER = re.compile(
    r"block|body|suite|statements|statement_list|compound|_list$|^program$|^module$|source|translation_unit|"
    r"compilation_unit|^chunk$|document|stream|structure|clause|^do|^then|^else|case|declarations|stylesheet|haskell"
)
_WRAPPER = re.compile(
    r"^(decorated_definition|export_statement|template_declaration|lexical_declaration|variable_declaration|"
    r"type_declaration|expression_statement|ambient_declaration|declaration|statement|method_signature|Decl|"
    r"attributed_statement|linkage_specification|list|preproc_ifdef|preproc_if|pair_list|value|unary_operator)$"
)
_LEAD = re.compile(
    r"comment|line_comment|block_comment|multiline_comment|attribute_item|haddock|unary_operator$|decorator$"
)
"""Nodes that belong to the definition directly below them (a unary operator is Elixir's `@doc`)."""
_HOLDS_METHODS = frozenset({"class", "struct", "interface", "trait", "impl", "object", "protocol", "enum", "instance"})


@dataclass(frozen=True, slots=True)
class Definition:
    """A named part of a text."""

    kind: str
    name: str
    start: int
    """First line, decorators included."""
    end: int
    """Last line."""
    signature_end: int
    """Last line of what comes before the body; ≥ `start`."""
    parent: int
    """Index of the enclosing definition in `Outline.definitions`, or -1."""
    lead: int
    """First line of the comments and attributes that stand directly above; `start` where there are none."""


class Statement(NamedTuple):
    """A statement's line range; statements nest."""

    start: int
    end: int
    depth: int
    """0 at the top level of the text."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Definitions in the order of their first lines (an outer one before its inner ones), and statements likewise."""

    definitions: tuple[Definition, ...]
    statements: tuple[Statement, ...]


def outline(data: bytes, language: Language, *, statements: bool = True) -> Outline | None:
    """Parse a text and list its definitions and statements; None where it cannot be parsed.

    Args:
        data: UTF-8, possibly broken; a fragment may begin and end anywhere between lines.
        language: from `language_of`.
        statements: whether to list statements too (costs a fifth more).

    Returns:
        None if the text is too long, has a line that is too long, or no grammar for the language is installed.
    """
    if len(data) > MAX_BYTES or _longest_line(data) > MAX_LINE_BYTES:
        return None
    parser = _parser(language.name)
    if parser is None:
        return None
    tree = parser.parse(_dedented(data))
    walk = _Walk(language)
    walk.run(tree.root_node, want_statements=statements)
    ordered = sorted(set(walk.statements), key=lambda s: (s.start, -s.end, s.depth))
    return Outline(walk.definitions(), tuple(ordered))


class _Walk:
    """One depth-first pass over a tree."""

    def __init__(self, language: Language) -> None:
        self.statements: list[Statement] = []
        self._definitions: list[Definition] = []
        self._language = language

    def definitions(self) -> tuple[Definition, ...]:
        """Sorted by first line, outer before inner, parents renumbered."""
        found = self._definitions
        order = sorted(range(len(found)), key=lambda i: (found[i].start, -found[i].end))
        position = {old: new for new, old in enumerate(order)}
        position[-1] = -1
        return tuple(replace(d, parent=position[d.parent]) for d in (found[i] for i in order))

    def run(self, root: Node, *, want_statements: bool) -> None:
        kinds = self._language.kinds
        conditional = self._language.conditional
        # (node, enclosing definition, depth of statements, first row of what leads up to a wrapper)
        stack: list[tuple[Node, int, int, int | None]] = [(root, -1, 0, None)]
        while stack:
            node, parent, depth, lead_above = stack.pop()
            is_container = want_statements and _form(node.type).is_container
            lead, lead_end = lead_above, -1
            for child in node.named_children:
                first = child.start_point[0]
                last, column = child.end_point
                kind = child.type
                form = _form(kind)
                # One that ends at a line's first column ends on the line before, as in `_last_line`.
                last_line = last + 1 if column > 0 else max(last, first + 1)
                if form.is_lead:
                    if lead is None or (lead_end >= 0 and first > lead_end + 1):
                        lead = first
                    lead_end = last_line - 1
                    if last > first and is_container and "comment" not in kind:
                        self.statements.append(Statement(first + 1, last_line, depth))
                    continue
                if lead is not None and lead_end >= 0 and first > lead_end + 1:
                    lead = None
                own_parent, is_definition = parent, False
                if kind in kinds:
                    is_definition = _has_body_if_needed(child, kind)
                    if is_definition:
                        own_parent = self._add(
                            child, kinds[kind], definition_name(child, self._language.name), parent, node, lead
                        )
                elif kind in conditional and (found := conditional_definition(child, self._language.name)) is not None:
                    is_definition = True
                    own_parent = self._add(child, found[0], found[1], parent, node, lead)
                if is_container:
                    self.statements.append(Statement(first + 1, last_line, depth))
                is_wrapper = not is_definition and form.is_wrapper
                if last > first or is_wrapper:
                    # Python's grammar puts a comment above a block's first statement before the block.
                    hands_on = is_wrapper or form.is_container
                    below = depth + 1 if is_container else depth
                    stack.append((child, own_parent, below, lead if hands_on else None))
                lead, lead_end = None, -1

    def _add(self, node: Node, kind: str, name: str, parent: int, above: Node, lead: int | None) -> int:
        if kind == "function" and parent >= 0 and self._definitions[parent].kind in _HOLDS_METHODS:
            kind = "method"
        first = node.start_point[0]
        if _form(above.type).is_wrapper and first - 30 <= above.start_point[0]:
            first = above.start_point[0]
        last = max(_last_line(_body_beside(node, above, self._language.name) or node), first + 1)
        start = first + 1
        lead_line = start if lead is None else min(lead + 1, start)
        self._definitions.append(
            Definition(kind, name, start, last, _signature_end(node, start, last), parent, lead_line)
        )
        return len(self._definitions) - 1


def _has_body_if_needed(node: Node, kind: str) -> bool:
    """C's `struct x` also stands where a type is only used."""
    if kind in ("struct_specifier", "enum_specifier", "union_specifier", "class_specifier"):
        return node.child_by_field_name("body") is not None
    return True


def _body_beside(node: Node, above: Node, language: str) -> Node | None:
    """Dart's and Zig's grammars put a function's body beside its signature, not in it."""
    if language == "dart" and node.type.endswith("_signature"):
        beside = (above if above.type == "method_signature" else node).next_named_sibling
        return beside if beside is not None and beside.type == "function_body" else None
    if language == "zig" and node.type in ("FnProto", "TestDecl"):
        beside = node.next_named_sibling
        return beside if beside is not None and beside.type == "Block" else None
    return None


def _signature_end(node: Node, start: int, last: int) -> int:
    body = node.child_by_field_name("body")
    if body is None:
        value = node.child_by_field_name("value") or node.child_by_field_name("right")
        body = None if value is None else value.child_by_field_name("body")
    if body is None:
        containers = [child for child in node.children if child.is_named and _form(child.type).is_container]
        body = containers[-1] if containers else None
    if body is None:
        return start
    before = body.prev_sibling
    row = body.start_point[0]
    end = row + 1 if before is None or before.end_point[0] == row else row
    return max(start, min(end, last, start + MAX_SIGNATURE_LINES - 1))


def _last_line(node: Node) -> int:
    """The node's last line; a node that ends at a line's first column (Markdown sections) ends on the line before."""
    row, column = node.end_point
    return row + 1 if column > 0 else max(row, node.start_point[0] + 1)


class _Form(NamedTuple):
    """What a kind of node is to the walk."""

    is_lead: bool
    is_container: bool
    is_wrapper: bool


@cache
def _form(kind: str) -> _Form:
    return _Form(*(pattern(kind) is not None for pattern in (_LEAD.match, _CONTAINER.search, _WRAPPER.match)))


def _longest_line(data: bytes) -> int:
    return max(map(len, data.split(b"\n")), default=0)


def _dedented(data: bytes) -> bytes:
    """The text without the indentation that all its lines share: what a fragment is cut out with."""
    if not data[:1].isspace():
        return data
    lines = data.split(b"\n")
    indents = [len(line) - len(line.lstrip(b" \t")) for line in lines if line.strip()]
    common = min(indents, default=0)
    return data if common == 0 else b"\n".join(line[common:] for line in lines)


@cache
def _parser(name: str) -> Parser | None:
    """The grammar's parser, or None where the optional packages or this grammar are not installed."""
    try:
        from tree_sitter_language_pack import get_parser

        return get_parser(name)  # type: ignore[arg-type]  # a Literal of all names; a test holds ours against it
    except (ImportError, LookupError):
        return None
