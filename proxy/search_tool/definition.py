"""The tool as models see it, and what its calls ask for. Knows no wire format."""

from __future__ import annotations

import msgspec

from sluice.proxy.translation.json_codec import Json

NAME = "code_search"
DESCRIPTION = (
    "Find code in this repository by meaning, name or symptom. Returns only the line ranges that answer, as "
    "path:start-end with their text. Use it before grep or reading whole files; ask in a few words or a sentence."
)
PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What to find."},
        "budget_tokens": {"type": "integer", "description": "Tokens of results; 1000 where left out, 4000 at most."},
    },
    "required": ["query"],
}
DEFAULT_BUDGET_TOKENS = 1000
MAX_BUDGET_TOKENS = 4000


class Asked(msgspec.Struct):
    """The arguments of a call."""

    query: str
    budget_tokens: int = DEFAULT_BUDGET_TOKENS


class _Function(msgspec.Struct):
    name: str = ""


class _Tool(msgspec.Struct):
    name: str = ""
    function: _Function | None = None


_arguments_decoder = msgspec.json.Decoder(Asked, strict=False)
_tools_decoder = msgspec.json.Decoder(list[_Tool])


def asked(arguments: str) -> Asked:
    """Read a call's arguments.

    Raises:
        ValueError: they ask for nothing; says why.
    """
    try:
        given = _arguments_decoder.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"the arguments are not of the form {{query: string}}: {error}") from None
    return Asked(given.query, min(given.budget_tokens, MAX_BUDGET_TOKENS))


def can_join(tools: bytes) -> bool:
    """Whether our tool can stand behind a request's own: it has some, none of this name, and they can be read.

    An MCP server's tools carry its name before theirs (`mcp__sluice__code_search`): the client then has ours already.

    Args:
        tools: the JSON of the request's field.
    """
    try:
        known = _tools_decoder.decode(tools)
    except msgspec.DecodeError:
        return False
    names = [tool.function.name if tool.function is not None else tool.name for tool in known]
    return bool(names) and not any(name == NAME or name.endswith(f"__{NAME}") for name in names)


def joined(tools: bytes, ours: bytes) -> bytes:
    """The request's tools with ours behind them, theirs byte for byte."""
    return tools.rstrip()[:-1].rstrip() + b"," + ours + b"]"
