"""What a definition's node is called, and whether a node that may define something does.

Grammars disagree about where a name stands; this module holds the exceptions to "the field `name`".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

_MAX_NAME_CHARS = 120
_FUNCTION_VALUES = frozenset(
    {"arrow_function", "function_expression", "generator_function", "function", "class", "function_definition"}
)
_NAME_KINDS = ("identifier", "name", "constant", "word", "scope_resolution", "value_name", "atom", "object_reference")
_ELIXIR_KINDS = {
    "defmodule": "module",
    "defprotocol": "protocol",
    "defimpl": "impl",
    "def": "function",
    "defp": "function",
    "defmacro": "macro",
    "defmacrop": "macro",
    "defguard": "macro",
    "defdelegate": "function",
    "defstruct": "struct",
}
_CLOJURE_KINDS = {
    "defn": "function",
    "defn-": "function",
    "defmacro": "macro",
    "def": "constant",
    "defmulti": "function",
    "defmethod": "method",
    "defprotocol": "protocol",
    "defrecord": "struct",
    "deftype": "struct",
    "ns": "namespace",
}


def text_of(node: Node) -> str:
    """The node's text, its white space folded, at most 120 characters."""
    data = node.text or b""
    return " ".join(data[: 4 * _MAX_NAME_CHARS].decode("utf-8", "replace").split())[:_MAX_NAME_CHARS]


def definition_name(node: Node, language: str) -> str:
    """The name of a node that is a definition; empty where it has none."""
    if node.type == "impl_item":
        parts = [child for f in ("trait", "type") if (child := node.child_by_field_name(f)) is not None]
        return " for ".join(text_of(part) for part in parts)
    if node.type == "section":
        heading = node.children[0] if node.children else None
        inline = None if heading is None else heading.child_by_field_name("heading_content")
        return "" if inline is None else text_of(inline)
    if node.type == "operator_declaration":
        operator = node.child_by_field_name("operator")
        return "operator" if operator is None else f"operator {text_of(operator)}"
    if language in ("c", "cpp", "objc") and node.type in ("function_definition", "type_definition"):
        return _declarator_name(node)
    if (named := node.child_by_field_name("name")) is not None:
        return text_of(named)
    if language == "zig" and (function := node.child_by_field_name("function")) is not None:
        return text_of(function)
    if node.type == "companion_object":
        return "companion"
    if node.type == "init_declaration":
        return "init"
    head = next((child for child in node.named_children if child.type in ("signature", "type_head")), node)
    return _first_name(head, depth=3)


def conditional_definition(node: Node, language: str) -> tuple[str, str] | None:
    """Kind and name if a node of a conditional kind does define something, else None."""
    if language == "elixir":
        return _elixir_definition(node)
    if language == "clojure":
        return _clojure_definition(node)
    if language == "julia":
        left = node.children[0] if node.children else None
        if left is None or left.type != "call_expression":
            return None
        return "function", _first_name(left, depth=1)
    if language == "zig":
        name = node.child_by_field_name("variable_type_function")
        is_container = any(child.type == "ContainerDecl" for child in _descend(node, depth=3))
        return ("struct", text_of(name)) if name is not None and is_container else None
    left, value = _sides(node)
    if left is None or value is None or value.type not in _FUNCTION_VALUES:
        return None
    return ("class" if value.type == "class" else "function"), text_of(left)


def _sides(node: Node) -> tuple[Node | None, Node | None]:
    """What is assigned to, and what is assigned."""
    by_field = node.child_by_field_name
    left = by_field("name") or by_field("left") or by_field("key") or by_field("property") or by_field("lhs")
    value = by_field("value") or by_field("right") or by_field("rhs")
    if node.type == "assignment_statement":  # Lua: lists on both sides
        names = [child for child in node.children if child.type == "variable_list"]
        values = [child for child in node.children if child.type == "expression_list"]
        left = names[0] if names else None
        value = values[0].named_children[0] if values and values[0].named_children else None
    return left, value


def _elixir_definition(node: Node) -> tuple[str, str] | None:
    target = node.child_by_field_name("target")
    if target is None or target.type != "identifier":
        return None
    kind = _ELIXIR_KINDS.get(text_of(target))
    if kind is None:
        return None
    arguments = next((child for child in node.children if child.type == "arguments"), None)
    if arguments is None or not arguments.named_children:
        return kind, ""
    head = arguments.named_children[0]
    if head.type == "binary_operator":  # a guard: `f(x) when …`
        head = head.child_by_field_name("left") or head
    if head.type == "call":
        head = head.child_by_field_name("target") or head
    return kind, "" if head.type in ("list", "keywords") else text_of(head)


def _clojure_definition(node: Node) -> tuple[str, str] | None:
    symbols = [child for child in node.named_children[:3] if child.type == "sym_lit"]
    if len(symbols) < 2:
        return None
    kind = _CLOJURE_KINDS.get(text_of(symbols[0]))
    return None if kind is None else (kind, text_of(symbols[1]))


def _declarator_name(node: Node) -> str:
    """C's inside-out declarators: follow them to the name."""
    current = node
    for _ in range(12):
        inner = current.child_by_field_name("declarator")
        if inner is None:
            inner = next((child for child in current.named_children if child.type.endswith("declarator")), None)
        if inner is None:
            break
        current = inner
    return "" if current is node else text_of(current)


def _first_name(node: Node, depth: int) -> str:
    for child in _descend(node, depth):
        if child.type.endswith(_NAME_KINDS):
            return text_of(child)
    return ""


def _descend(node: Node, depth: int) -> list[Node]:
    """Named descendants, nearest first, to this depth."""
    found: list[Node] = []
    level = [node]
    for _ in range(depth):
        level = [child for parent in level for child in parent.named_children]
        found.extend(level)
    return found
