"""Fields of a request outside its messages, whose names or forms differ between wire formats.

What a foreign server may refuse is left out: a field that no one needs must not cost the request.
"""

from __future__ import annotations

import re

from sluice.proxy.errors import InvalidFieldError
from sluice.proxy.translation.json_codec import Json, mapping, objects, text

MAX_TOKENS_CEILING = 16_000
"""From here on a limit is read as "as much as the model can": `max_tokens` is mandatory in the Messages format, clients
fill in what their own model can write (Claude Code: 32,000 or 64,000), and servers with a smaller context refuse it."""
_MAX_USER_CHARS = 64
_NEW_OPENAI = re.compile(r"(?:.*/)?(?:o\d|gpt-[5-9]|gpt-\d\d|codex)")
"""OpenAI's models that take `max_completion_tokens` and `reasoning_effort`, and refuse `max_tokens`."""
_OPEN_WEIGHTS = re.compile(r"(?:.*/)?gpt-oss")
"""OpenAI's open weights, which servers run with three efforts."""
_EFFORTS = {"xhigh": "high", "max": "high"}
_SAMPLED_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(?:[1-3](?!\d)|4(?!\d|[-.](?:[7-9]|[1-9]\d)(?!\d)))")
"""Claude models up to 4.6, by their names, dated ones and other hosts' included; later ones refuse `temperature`."""
_OUTPUT_LIMITS = (
    (re.compile(r"claude-3-(?:haiku|opus|sonnet)"), 4096),
    (re.compile(r"claude-3-5"), 8192),
)
_SIGNING_GEMINI = re.compile(r"(?:.*/)?gemini-(?![0-2](?!\d))")
"""Gemini models from 3 on: they sign their calls, and refuse a history in which a signature is missing."""
_UNSIGNED = "skip_thought_signature_validator"
"""What they take in place of a signature, for calls that come from elsewhere; other formats have no room for theirs."""
DEFAULT_MAX_TOKENS = 32_000
"""What every Claude model since 4 can write."""


def put(target: Json, **fields: object) -> None:
    """Set the fields that have a value."""
    target.update({name: value for name, value in fields.items() if value is not None})


def max_tokens_field(model: str) -> str:
    """The field of a chat request that bounds its answer. Most servers know the older name alone."""
    return "max_completion_tokens" if _NEW_OPENAI.match(model) else "max_tokens"


def is_openai(model: str) -> bool:
    """Whether a model is one of OpenAI's that reason, by its name."""
    return bool(_NEW_OPENAI.match(model))


def sampling(model: str, **asked: object) -> Json:
    """The fields that steer sampling in a chat request: all that are asked for, or none where the model refuses them.

    OpenAI's models that reason take no temperature but 1, and no stop sequences at all.
    """
    return {} if is_openai(model) else asked


def takes_sampling(model: str) -> bool:
    """Whether a model takes `temperature` and `top_p`, by its name; newer Claude models do not."""
    return "claude" not in model or _SAMPLED_CLAUDE.search(model) is not None


def effort(model: str, value: object, *, is_openais: bool) -> str | None:
    """The `reasoning_effort` of a chat request; None where the model is not known to take one, and may refuse it.

    Args:
        model: that is asked for.
        value: what the client asks for.
        is_openais: whether that is OpenAI's own word, of which there are more for its newer models.
    """
    if not isinstance(value, str):
        return None
    if _NEW_OPENAI.match(model):
        return value if is_openais else _EFFORTS.get(value, value)
    if _OPEN_WEIGHTS.match(model):
        told = _EFFORTS.get(value, value)
        return told if told in ("low", "medium", "high") else None
    return None


def max_output_tokens(model: str) -> int:
    """What a Claude model can write, for requests that set no limit: the Messages format has to have one."""
    return next((limit for pattern, limit in _OUTPUT_LIMITS if pattern.search(model)), DEFAULT_MAX_TOKENS)


def end_user(value: object) -> str | None:
    """A caller's name for its user, where OpenAI would take it."""
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_USER_CHARS else None


def function_tool(name: str, description: object, parameters: object, strict: object = None) -> Json:
    """A tool of the chat format."""
    function: Json = {"name": name}
    put(function, description=description if isinstance(description, str) else None)
    function["parameters"] = parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}}
    if strict is True:
        function["strict"] = True
    return {"type": "function", "function": function}


def call_extra(model: str) -> Json:
    """What a model wants to see on its earlier calls in a chat request, beside what every model gets."""
    if _SIGNING_GEMINI.match(model):
        return {"extra_content": {"google": {"thought_signature": _UNSIGNED}}}
    return {}


def function_choice(name: str) -> Json:
    """The chat format's `tool_choice` of one function."""
    return {"type": "function", "function": {"name": name}}


def without_schema_dialect(schema: Json) -> Json:
    """A schema less `$schema`, which says nothing to a model and which some servers refuse."""
    return {key: value for key, value in schema.items() if key != "$schema"}


def json_schema_format(name: object, schema: object, strict: object) -> Json:
    """The chat format's `response_format` of a JSON schema."""
    form: Json = {"name": text(name) or "answer", "schema": mapping(schema)}
    put(form, strict=strict)
    return {"type": "json_schema", "json_schema": form}


def refuse_stored_file(file_id: object, param: str) -> None:
    """Refuse a file that stands only by its id: an answer without it would be a wrong one.

    Raises:
        InvalidFieldError: it has one.
    """
    if file_id:
        raise InvalidFieldError(
            f"file {file_id!r} is stored with its provider alone; this upstream needs its data", param=param
        )


def texts(value: object) -> list[str]:
    """The texts of a string or of a list of blocks."""
    if isinstance(value, str):
        return [value] if value else []
    return [text(block.get("text")) for block in objects(value) if text(block.get("text"))]
