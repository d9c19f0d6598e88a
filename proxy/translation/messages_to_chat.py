"""Anthropic's Messages requests as chat requests.

What only Anthropic's servers do (server tools, caching marks, context editing) is left out; the rest is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice.proxy.errors import InvalidFieldError
from sluice.proxy.translation import fields
from sluice.proxy.translation.chat_messages import Call, ChatMessages, image_part, text_part
from sluice.proxy.translation.dropped import log_dropped
from sluice.proxy.translation.json_codec import Json, encode, mapping, objects, text
from sluice.proxy.translation.thinking import thinking_of
from sluice.proxy.translation.tool_names import chat_name

BILLING_PREFIX = "x-anthropic-billing-header:"
"""A line for Anthropic's servers that Claude Code sends as system text; it differs by turn and means nothing here."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_CLIENT_TOOLS: dict[str, Json] = {
    "bash": {
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": "The command to run."},
            "restart": {"type": "boolean", "description": "Restart the shell."},
        },
    },
    "text_editor": {
        "type": "object",
        "properties": {
            "command": {"type": "string", "enum": ["view", "create", "str_replace", "insert"]},
            "path": {"type": "string"},
            "file_text": {"type": "string"},
            "old_str": {"type": "string"},
            "new_str": {"type": "string"},
            "insert_line": {"type": "integer"},
            "insert_text": {"type": "string"},
            "view_range": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["command", "path"],
    },
}
"""Tools that Anthropic's models know by type and clients run: their schema has to be said to other models."""


def request(source: Json) -> Json:
    """Translate a request.

    Raises:
        InvalidFieldError: it names a tool that no other server has, or a file that only its provider has.
    """
    model = text(source.get("model"))
    chat: Json = {"model": model, "messages": messages(source)}
    tools = _tools(source.get("tools"))
    if tools:
        chat["tools"] = tools
        _put_choice(chat, mapping(source.get("tool_choice")))
    elif mapping(source.get("tool_choice")).get("type") == "tool":
        _check_choice(source["tool_choice"], tools)
    limit = source.get("max_tokens")
    if isinstance(limit, int) and limit < fields.MAX_TOKENS_CEILING:
        chat[fields.max_tokens_field(model)] = limit
    stops = source.get("stop_sequences")
    fields.put(
        chat,
        **fields.sampling(
            model,
            temperature=source.get("temperature"),
            top_p=source.get("top_p"),
            top_k=source.get("top_k"),
            stop=stops if isinstance(stops, list) and stops else None,
        ),
        user=fields.end_user(mapping(source.get("metadata")).get("user_id")),
    )
    config = mapping(source.get("output_config"))
    fields.put(chat, reasoning_effort=fields.effort(model, config.get("effort"), is_openais=False))
    form = mapping(config.get("format") or source.get("output_format"))
    if form.get("type") == "json_schema":
        chat["response_format"] = fields.json_schema_format(form.get("name"), form.get("schema"), True)
    if source.get("stream") is True:
        fields.put(chat, stream=True, stream_options={"include_usage": True})
    return chat


def tool_names(source: Json) -> dict[str, str]:
    """The client's names of a request's tools, by those that they have in the chat format."""
    return {chat_name(name): name for tool in objects(source.get("tools")) if (name := text(tool.get("name")))}


def messages(source: Json) -> list[Json]:
    """Translate system text and messages."""
    chat = ChatMessages(fields.call_extra(text(source.get("model"))))
    for part in fields.texts(source.get("system")):
        if not part.startswith(BILLING_PREFIX):
            chat.system(part)
    for message in objects(source.get("messages")):
        content = message.get("content")
        if isinstance(content, str):
            content = [text_part(content)] if content else []
        blocks = objects(content)
        if message.get("role") == "assistant":
            _assistant(chat, blocks)
        elif message.get("role") == "system":
            chat.system("\n\n".join(fields.texts(content)))
        else:
            _user(chat, blocks)
    return chat.finish()


def _assistant(chat: ChatMessages, blocks: Sequence[Json]) -> None:
    said = [text(block.get("text")) for block in blocks if block.get("type") == "text"]
    calls = [
        Call(text(block.get("id")), chat_name(text(block.get("name"))), encode(mapping(block.get("input"))).decode())
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    chat.assistant("\n\n".join(part for part in said if part), calls, thinking_of(blocks))


def _user(chat: ChatMessages, blocks: Sequence[Json]) -> None:
    for block in blocks:
        if block.get("type") == "tool_result":
            _result(chat, block)
    chat.user([part for block in blocks if block.get("type") != "tool_result" for part in _parts(block)])


def _result(chat: ChatMessages, block: Json) -> None:
    content = block.get("content")
    parts = [text_part(content)] if isinstance(content, str) else [p for b in objects(content) for p in _parts(b)]
    said = "\n".join(part["text"] for part in parts if part["type"] == "text")
    others = [part for part in parts if part["type"] != "text"]
    if block.get("is_error") is True and "error" not in said[:80].lower():
        said = f"Error: {said}"
    if others:
        note = f"[{len(others)} attached: see the next user message]"
        said = f"{said}\n{note}" if said else note
        others.insert(0, text_part(f"[attached to the result of {text(block.get('tool_use_id'))}]"))
    chat.result(text(block.get("tool_use_id")), said, others)


def _parts(block: Json) -> list[Json]:
    """Parts of the chat format for a block of a user's message or of a result."""
    kind, source = block.get("type"), mapping(block.get("source"))
    fields.refuse_stored_file(block.get("file_id") or source.get("file_id"), "messages")
    if kind == "text":
        return [text_part(text(block.get("text")))] if block.get("text") else []
    if kind == "image" and (url := _url(source, "image/png")):
        return [image_part(url)]
    if kind == "document":
        return _document(block, source)
    if kind == "search_result":
        body = "\n".join(fields.texts(block.get("content")))
        return [text_part(f"{text(block.get('title'))}\n{text(block.get('source'))}\n{body}")]
    if kind == "tool_reference":
        return [text_part(f"[tool {chat_name(text(block.get('tool_name')))} is available]")]
    return []


def _document(block: Json, source: Json) -> list[Json]:
    title = text(block.get("title")) or "document"
    if source.get("type") == "text":
        return [text_part(f"{title}:\n{text(source.get('data'))}")]
    if source.get("type") == "content":
        inner = source.get("content")
        return [text_part(inner)] if isinstance(inner, str) else [p for b in objects(inner) for p in _parts(b)]
    if source.get("type") == "url":
        return [text_part(f"{title}: {text(source.get('url'))}")]
    if url := _url(source, "application/pdf"):
        return [{"type": "file", "file": {"filename": title, "file_data": url}}]
    return []


def _url(source: Json, default_type: str) -> str:
    if source.get("type") == "base64":
        return f"data:{text(source.get('media_type')) or default_type};base64,{text(source.get('data'))}"
    return text(source.get("url"))


def _tools(value: object) -> list[Json]:
    tools, dropped = [], []
    for tool in objects(value):
        kind, name = text(tool.get("type")), text(tool.get("name"))
        schema = tool.get("input_schema")
        if schema is None:
            schema = next((known for prefix, known in _CLIENT_TOOLS.items() if kind.startswith(prefix + "_")), None)
        if isinstance(schema, dict):
            described = tool.get("description") or (f"Anthropic's {kind} tool." if kind else None)
            parameters = fields.without_schema_dialect(schema)
            tools.append(fields.function_tool(chat_name(name), described, parameters, tool.get("strict")))
        else:
            dropped.append(name or kind)
    log_dropped("messages", dropped)
    return tools


def _put_choice(chat: Json, choice: Json) -> None:
    kind = choice.get("type")
    if kind == "tool":
        _check_choice(choice, chat["tools"])
        chat["tool_choice"] = fields.function_choice(chat_name(text(choice.get("name"))))
    elif kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    if choice.get("disable_parallel_tool_use") is True:
        chat["parallel_tool_calls"] = False


def _check_choice(choice: Json, tools: Sequence[Json]) -> None:
    name = choice.get("name")
    if all(tool["function"]["name"] != chat_name(text(name)) for tool in tools):
        raise InvalidFieldError(
            f"tool_choice asks for {name!r}, which is no tool that this upstream can be told of", param="tool_choice"
        )
