"""Chat requests as Anthropic's Messages requests.

Clients of the chat format mark no place for Anthropic's prompt cache, so it is marked here: without, each turn would be
paid in full. What was translated is only ever appended to while the client appends.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sluice.proxy.errors import InvalidFieldError
from sluice.proxy.translation import fields
from sluice.proxy.translation.dropped import log_dropped
from sluice.proxy.translation.json_codec import Json, decode_object, mapping, objects, text

_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)
_BAD_ID = re.compile(r"[^A-Za-z0-9_-]")
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_CACHED: Json = {"type": "ephemeral"}
_EMPTY = "(empty)"
"""Anthropic refuses messages and text blocks without text."""
UNREADABLE = "unreadable_arguments"
"""Holds arguments that were no JSON object: a `tool_use` block has to have one."""


def request(source: Json) -> Json:
    """Translate a request.

    Raises:
        InvalidFieldError: it has functions of before there were tools, or a file that only its provider has.
    """
    if source.get("functions"):
        raise _older("functions", "functions")
    model = text(source.get("model"))
    limit = source.get("max_completion_tokens") or source.get("max_tokens")
    system, messages = _messages(source.get("messages"))
    target: Json = {
        "model": model,
        "max_tokens": limit if isinstance(limit, int) and limit > 0 else fields.max_output_tokens(model),
    }
    offered = objects(source.get("tools"))
    tools = [_tool(mapping(tool.get("function"))) for tool in offered if tool.get("function")]
    log_dropped("chat", [_name_of(tool) for tool in offered if not tool.get("function")])
    choice = _choice(source)
    if tools:
        fields.put(target, tools=tools, tool_choice=choice)
    if system:
        target["system"] = system
    target["messages"] = messages
    _mark_cached(target)
    stop = source.get("stop")
    stops = [stop] if isinstance(stop, str) else stop
    temperature, top_p = source.get("temperature"), source.get("top_p")
    if not fields.takes_sampling(model):
        temperature = top_p = None
    user = fields.end_user(source.get("user"))
    fields.put(
        target,
        temperature=min(temperature, 1) if isinstance(temperature, int | float) else None,
        # Some models take one of the two; temperature is the one that clients mean.
        top_p=top_p if temperature is None else None,
        stop_sequences=[one for one in stops if text(one).strip()] or None if isinstance(stops, list) else None,
        metadata={"user_id": user} if user else None,
    )
    form = mapping(source.get("response_format"))
    if form.get("type") == "json_schema":
        schema = mapping(mapping(form.get("json_schema")).get("schema"))
        target["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if source.get("stream") is True:
        target["stream"] = True
    return target


def _messages(value: object) -> tuple[list[Json], list[Json]]:
    system: list[Json] = []
    messages: list[Json] = []
    for message in objects(value):
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            if messages:
                wrapped = [_text(f"<system>\n{part}\n</system>") for part in fields.texts(content)]
                _append(messages, "user", wrapped)
            else:
                system += [block for block in _blocks(content) if block["type"] == "text"]
        elif role == "assistant":
            if message.get("function_call"):
                raise _older("function_call", "messages")
            _append(messages, "assistant", [*_thought(message), *_blocks(content), *_calls(message)])
        elif role == "function":
            raise _older("role 'function'", "messages")
        elif role == "tool":
            _append(messages, "user", [_result(message)])
        else:
            _append(messages, "user", _blocks(content) or [_text(_EMPTY)])
    if messages and messages[0]["role"] == "assistant":
        messages.insert(0, {"role": "user", "content": [_text(_EMPTY)]})
    return system, messages


def _older(what: str, param: str) -> InvalidFieldError:
    return InvalidFieldError(f"{what} cannot be told this upstream; use tools in their place", param=param)


def _append(messages: list[Json], role: str, blocks: list[Json]) -> None:
    """Add blocks; the results of parallel calls have to stand in one message, so what one role says is one."""
    if not blocks:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


def _blocks(content: object) -> list[Json]:
    if isinstance(content, str):
        return [_text(content)] if content.strip() else []
    blocks: list[Json] = []
    for part in objects(content):
        kind = part.get("type")
        block: Json | None = None
        if kind in ("text", "refusal"):
            said = text(part.get("text")) or text(part.get("refusal"))
            block = _text(said) if said.strip() else None
        elif kind == "image_url":
            block = _image(mapping(part.get("image_url")))
        elif kind == "file":
            block = _document(mapping(part.get("file")))
        if block is not None:
            if isinstance(part.get("cache_control"), dict):
                block["cache_control"] = part["cache_control"]
            blocks.append(block)
    return blocks


def _text(said: str) -> Json:
    return {"type": "text", "text": said}


def _image(image: Json) -> Json | None:
    url = text(image.get("url"))
    if (match := _DATA_URL.fullmatch(url)) is not None:
        return {"type": "image", "source": {"type": "base64", "media_type": match[1], "data": match[2]}}
    return {"type": "image", "source": {"type": "url", "url": url}} if url else None


def _document(file: Json) -> Json | None:
    if (match := _DATA_URL.fullmatch(text(file.get("file_data")))) is None:
        fields.refuse_stored_file(file.get("file_id"), "messages")
        return None
    block: Json = {
        "type": "document",
        "source": {"type": "base64", "media_type": match[1], "data": match[2]},
    }
    fields.put(block, title=file.get("filename"))
    return block


def _thought(message: Json) -> list[Json]:
    blocks = objects(message.get("thinking_blocks"))  # as clients keep what came from Anthropic through this form
    return [block for block in blocks if block.get("signature") or block.get("type") == "redacted_thinking"]


def _calls(message: Json) -> list[Json]:
    calls = []
    for call in objects(message.get("tool_calls")):
        function = mapping(call.get("function"))
        custom = mapping(call.get("custom"))
        calls.append(
            {
                "type": "tool_use",
                "id": call_id(text(call.get("id"))),
                "name": text(function.get("name") or custom.get("name")),
                "input": {"input": text(custom.get("input"))}
                if custom
                else call_input(text(function.get("arguments"))),
            }
        )
    return calls


def call_id(value: str) -> str:
    """A call's id in the characters that Anthropic takes: the same id always gives the same."""
    plain = _BAD_ID.sub("_", value)
    if plain == value and plain:
        return plain
    return f"{plain[:40]}_{hashlib.blake2b(value.encode(errors='surrogatepass'), digest_size=4).hexdigest()}"


def call_input(arguments: str) -> Json:
    """A call's arguments as the object that a `tool_use` block has to have."""
    if not arguments.strip():
        return {}
    try:
        return decode_object(arguments)
    except ValueError:
        return {UNREADABLE: arguments}


def _result(message: Json) -> Json:
    blocks = _blocks(message.get("content"))
    # Marked is the result as a whole: its parts cannot be cached for themselves, and their marks count all the same.
    marks = [block.pop("cache_control") for block in blocks if "cache_control" in block]
    content: Any = blocks
    if all(set(block) == {"type", "text"} for block in blocks):
        content = "\n".join(block["text"] for block in blocks)
    block: Json = {"type": "tool_result", "tool_use_id": call_id(text(message.get("tool_call_id")))}
    if content:
        block["content"] = content
    if marks:
        block["cache_control"] = marks[-1]
    return block


def _name_of(tool: Json) -> str:
    kind = text(tool.get("type"))
    return text(mapping(tool.get(kind)).get("name")) or kind


def _tool(function: Json) -> Json:
    tool: Json = {"name": text(function.get("name"))}
    fields.put(tool, description=function.get("description") or None)
    schema = mapping(function.get("parameters"))
    tool["input_schema"] = schema if schema.get("type") == "object" else {"type": "object", "properties": {}, **schema}
    if function.get("strict") is True:
        tool["strict"] = True
    return tool


def _choice(source: Json) -> Json | None:
    value = source.get("tool_choice")
    choice: Json | None = None
    if isinstance(value, str) and value in _CHOICES:
        choice = {"type": _CHOICES[value]}
    elif name := text(mapping(mapping(value).get("function")).get("name")):
        choice = {"type": "tool", "name": name}
    if source.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice


def _mark_cached(target: Json) -> None:
    """Mark the ends of what stays the same: tools and system, and the last two messages of the user's side.

    Two, as Anthropic looks back 20 blocks from a mark: the older is found again where a turn brought more.
    """
    system, messages = target.get("system", []), target["messages"]
    everything = [*system, *(block for message in messages for block in message["content"])]
    if any("cache_control" in block for block in everything):
        return  # the client has placed its own
    if system:
        system[-1]["cache_control"] = _CACHED
    elif target.get("tools"):
        target["tools"][-1]["cache_control"] = _CACHED
    for message in [message for message in messages if message["role"] == "user"][-2:]:
        message["content"][-1]["cache_control"] = _CACHED
