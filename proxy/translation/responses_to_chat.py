"""OpenAI's Responses requests as chat requests.

The request has to carry its whole history: what only the provider has stored (`previous_response_id`, `conversation`,
prompt templates, items by reference) is refused by name, as an answer without it would be a wrong one.
"""

from __future__ import annotations

from sluice.proxy.errors import InvalidFieldError
from sluice.proxy.translation import fields
from sluice.proxy.translation.chat_messages import Call, ChatMessages, image_part, text_part
from sluice.proxy.translation.dropped import log_dropped
from sluice.proxy.translation.json_codec import Json, encode, mapping, objects, text
from sluice.proxy.translation.thinking import FIELDS
from sluice.proxy.translation.tool_names import LOCAL_SHELL, ToolName, chat_name, chat_tools, custom_arguments, tools_of

_STORED = ("previous_response_id", "conversation", "prompt")
_SYSTEM_ROLES = ("system", "developer")
_COMPACTED = "[An earlier part of this conversation was compacted by another provider and cannot be read here.]"
_CALLS = ("function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call")


def request(source: Json) -> Json:
    """Translate a request.

    Raises:
        InvalidFieldError: it rests on what only its provider has stored, or names a tool that no other server has.
    """
    for name in _STORED:
        if source.get(name):
            raise InvalidFieldError(
                f"{name} names what only the provider has stored; this upstream needs the whole input", param=name
            )
    if source.get("background") is True:
        raise InvalidFieldError("background must be false: this upstream answers at once", param="background")
    model = text(source.get("model"))
    chat: Json = {"model": model, "messages": messages(source)}
    tools, names, dropped = chat_tools(tools_of(source))
    log_dropped("responses", dropped)
    if tools:
        chat["tools"] = tools
    _put_choice(chat, source.get("tool_choice"), names)
    if tools:
        fields.put(chat, parallel_tool_calls=source.get("parallel_tool_calls"))
    limit = source.get("max_output_tokens")
    if isinstance(limit, int):
        chat[fields.max_tokens_field(model)] = limit
    fields.put(
        chat,
        **fields.sampling(model, temperature=source.get("temperature"), top_p=source.get("top_p")),
        user=fields.end_user(source.get("user")),
        reasoning_effort=fields.effort(model, mapping(source.get("reasoning")).get("effort"), is_openais=True),
    )
    form = mapping(mapping(source.get("text")).get("format"))
    if form.get("type") == "json_schema":
        chat["response_format"] = fields.json_schema_format(form.get("name"), form.get("schema"), form.get("strict"))
    elif form.get("type") == "json_object":
        chat["response_format"] = {"type": "json_object"}
    if source.get("stream") is True:
        fields.put(chat, stream=True, stream_options={"include_usage": True})
    return chat


def messages(source: Json) -> list[Json]:
    """Translate instructions and items.

    Raises:
        InvalidFieldError: an item, or a file, stands only by reference.
    """
    chat = ChatMessages(fields.call_extra(text(source.get("model"))))
    chat.system(text(source.get("instructions")))
    value = source.get("input")
    if isinstance(value, str):
        chat.user([text_part(value)])
    thought = ""
    for item in objects(value):
        kind = item.get("type") or "message"
        thinking = {FIELDS[0]: thought} if thought else None
        if kind == "reasoning":
            thought += "\n".join(fields.texts(item.get("content")))
            continue
        if kind == "item_reference":
            raise InvalidFieldError(
                "an input item stands only by reference; this upstream needs the whole input", param="input"
            )
        if kind == "message":
            _message(chat, item, thinking)
        elif kind in _CALLS:
            chat.assistant("", [_call(item)], thinking)
        elif kind.endswith("_call_output"):
            _output(chat, item)
        elif kind in ("compaction", "compaction_summary", "context_compaction"):
            chat.user([text_part(_COMPACTED)])
        thought = ""
    return chat.finish()


def _message(chat: ChatMessages, item: Json, thinking: Json | None) -> None:
    content = item.get("content")
    if item.get("role") == "assistant":
        said = [content] if isinstance(content, str) else [_said(part) for part in objects(content)]
        chat.assistant("".join(said), (), thinking)
    elif item.get("role") in _SYSTEM_ROLES:
        chat.system("\n\n".join(fields.texts(content)))
    else:
        chat.user(_parts(content))


def _said(part: Json) -> str:
    return text(part.get("text")) or text(part.get("refusal"))


def _call(item: Json) -> Call:
    kind, call_id = item["type"], text(item.get("call_id")) or text(item.get("id"))
    name = chat_name(text(item.get("name")), text(item.get("namespace")) or None)
    if kind == "function_call":
        return Call(call_id, name, text(item.get("arguments")) or "{}")
    if kind == "custom_tool_call":
        return Call(call_id, name, custom_arguments(text(item.get("input"))))
    if kind == "local_shell_call":
        action = {key: value for key, value in mapping(item.get("action")).items() if key != "type" and value}
        return Call(call_id, LOCAL_SHELL, encode(action).decode())
    action = mapping(item.get("action") or item.get("operation"))
    return Call(call_id, kind.removesuffix("_call"), encode(action).decode())


def _output(chat: ChatMessages, item: Json) -> None:
    call_id, output = text(item.get("call_id")) or text(item.get("id")), item.get("output")
    if item.get("type") == "shell_call_output":
        lines = [text(one.get("stdout")) + text(one.get("stderr")) for one in objects(output)]
        chat.result(call_id, "\n".join(lines))
        return
    parts = _parts(output)
    said = "\n".join(part["text"] for part in parts if part["type"] == "text")
    others = [part for part in parts if part["type"] != "text"]
    if others:
        note = f"[{len(others)} attached: see the next user message]"
        said = f"{said}\n{note}" if said else note
        others.insert(0, text_part(f"[attached to the result of {call_id}]"))
    chat.result(call_id, said, others)


def _parts(content: object) -> list[Json]:
    """Parts of the chat format for an item's content."""
    if isinstance(content, str):
        return [text_part(content)] if content else []
    parts = []
    for part in objects(content):
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text", "summary_text") and part.get("text"):
            parts.append(text_part(text(part.get("text"))))
        elif kind == "input_image" and (url := text(part.get("image_url"))):
            parts.append(image_part(url, part.get("detail")))
        elif kind == "input_file" and (data := text(part.get("file_data"))):
            parts.append(_file(data, text(part.get("filename"))))
        elif kind == "input_file" and (url := text(part.get("file_url"))):
            parts.append(text_part(f"[file: {url}]"))
        elif kind in ("input_image", "input_file"):
            fields.refuse_stored_file(part.get("file_id"), "input")
    return parts


def _file(data: str, name: str) -> Json:
    return {"type": "file", "file": {"filename": name or "file", "file_data": data}}


def _put_choice(chat: Json, choice: object, names: dict[str, ToolName]) -> None:
    if isinstance(choice, str):
        if names:
            chat["tool_choice"] = choice
        return
    form = mapping(choice)
    kind = form.get("type")
    if kind == "allowed_tools":
        _put_choice(chat, form.get("mode"), names)
        return
    if not form:
        return
    name = chat_name(text(form.get("name")) or text(kind), text(form.get("namespace")) or None)
    if name not in names:
        asked = form.get("name") or kind
        raise InvalidFieldError(
            f"tool_choice asks for {asked!r}, which is no tool that this upstream can be told of", param="tool_choice"
        )
    chat["tool_choice"] = fields.function_choice(name)
