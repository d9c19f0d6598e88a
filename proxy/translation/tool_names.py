"""Tools under the names that they have in the chat format, and back.

It takes shorter names than the others, and knows functions alone, without namespaces. A custom tool of the Responses
format, whose input is free text, becomes a function with one string; the client's own shell becomes a function with its
schema. Knows nothing else of a request.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sluice.proxy.translation import fields
from sluice.proxy.translation.json_codec import Json, decode_object, encode, mapping, objects, text

INPUT = "input"
"""The one parameter of a function that was a custom tool."""
LOCAL_SHELL = "local_shell"
ADDITIONAL_TOOLS = "additional_tools"
"""The item by which a client tells of tools within the input."""
_MAX_NAME_CHARS = 64
_BAD_CHARS = re.compile(r"[^A-Za-z0-9_-]")
_LOCAL_SHELL_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "command": {"type": "array", "items": {"type": "string"}, "description": "The command and its arguments."},
        "working_directory": {"type": "string"},
        "timeout_ms": {"type": "integer"},
    },
    "required": ["command"],
}


class Kind(StrEnum):
    """What a tool is to the client."""

    FUNCTION = "function"
    CUSTOM = "custom"
    LOCAL_SHELL = "local_shell"


@dataclass(frozen=True, slots=True)
class ToolName:
    """A tool, as the client knows it."""

    name: str
    kind: Kind = Kind.FUNCTION
    namespace: str | None = None


def chat_name(name: str, namespace: str | None = None) -> str:
    """The name of a tool in the chat format: the same tool always has the same."""
    joined = name
    if namespace:
        joined = namespace + name if namespace.endswith("__") else f"{namespace}__{name}"
    plain = _BAD_CHARS.sub("_", joined)
    if plain == joined and len(plain) <= _MAX_NAME_CHARS:
        return plain
    digest = hashlib.blake2b(joined.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{plain[: _MAX_NAME_CHARS - 9]}_{digest}"


def tools_of(request: Json) -> list[Json]:
    """The tools of a Responses request: its own, then those that stand among its items, where Codex has them."""
    items = (item for item in objects(request.get("input")) if item.get("type") == ADDITIONAL_TOOLS)
    return [*objects(request.get("tools")), *(tool for item in items for tool in objects(item.get("tools")))]


def chat_tools(tools: object) -> tuple[list[Json], dict[str, ToolName], list[str]]:
    """Translate the tools of a Responses request.

    Returns:
        The chat format's tools; the client's tools by their names there; the names of what is left out, which only
        the provider's own servers run.
    """
    translated: list[Json] = []
    names: dict[str, ToolName] = {}
    dropped: list[str] = []
    for tool, namespace in _flat(tools):
        kind, name = text(tool.get("type")), text(tool.get("name"))
        known = chat_name(LOCAL_SHELL if kind == LOCAL_SHELL else name, namespace)
        described = tool.get("description")
        if known in names:
            continue
        if kind == Kind.FUNCTION and name:
            parameters = tool.get("parameters")
            if isinstance(parameters, dict):
                parameters = fields.without_schema_dialect(parameters)
            made = fields.function_tool(known, described, parameters, tool.get("strict"))
            names[known] = ToolName(name, Kind.FUNCTION, namespace)
        elif kind == Kind.CUSTOM and name:
            made = fields.function_tool(known, _custom_description(tool), _custom_schema())
            names[known] = ToolName(name, Kind.CUSTOM, namespace)
        elif kind == Kind.LOCAL_SHELL:
            made = fields.function_tool(known, "Runs a command in the user's shell.", _LOCAL_SHELL_SCHEMA)
            names[known] = ToolName(LOCAL_SHELL, Kind.LOCAL_SHELL)
        else:
            dropped.append(name or kind)
            continue
        translated.append(made)
    return translated, names, dropped


def custom_arguments(custom_input: str) -> str:
    """A custom tool's input as a function's arguments."""
    return encode({INPUT: custom_input}).decode()


def custom_input(arguments: str) -> str:
    """A function's arguments as a custom tool's input; as they are where the model did not follow the schema."""
    try:
        value = decode_object(arguments).get(INPUT)
    except ValueError:
        return arguments
    return value if isinstance(value, str) else arguments


def _flat(tools: object) -> Iterator[tuple[Json, str | None]]:
    for tool in objects(tools):
        if tool.get("type") == "namespace":
            yield from ((inner, text(tool.get("name"))) for inner in objects(tool.get("tools")))
        else:
            yield tool, None


def _custom_schema() -> Json:
    described = {"type": "string", "description": "The tool's whole input, as plain text."}
    return {"type": "object", "properties": {INPUT: described}, "required": [INPUT], "additionalProperties": False}


def _custom_description(tool: Json) -> str:
    form = mapping(tool.get("format"))
    lines = [text(tool.get("description"))]
    if form.get("type") == "grammar":
        lines.append(f"The input must match this {text(form.get('syntax'))} grammar:\n{text(form.get('definition'))}")
    return "\n\n".join(line for line in lines if line)
