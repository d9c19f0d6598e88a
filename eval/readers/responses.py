"""OpenAI Responses requests, one a line: `{"instructions": …, "input": […]}`, and their items as chat messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.base import (
    Format,
    Message,
    Recorded,
    Requests,
    Value,
    add_calls,
    call,
    result,
    text_of,
    unwrap,
)

_OUTPUTS = {
    "function_call_output",
    "custom_tool_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
}


def knows(value: Any) -> bool:
    """See `Format`."""
    request, _ = unwrap(value)
    return isinstance(request.get("input"), (str, list)) and "messages" not in request


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    requests = Requests()
    for value in values:
        request, answer = unwrap(value.data)
        if not isinstance(request.get("input"), (str, list)):
            raise ValueError("no input")
        if is_continued(request):
            raise ValueError("its history is with the provider alone (previous_response_id or conversation)")
        add_request(requests, request, answer, value)
    return requests.conversations()


def is_continued(request: dict[str, Any]) -> bool:
    """Whether a request leans on a history that it does not hold."""
    return bool(request.get("previous_response_id") or request.get("conversation"))


def add_request(requests: Requests, request: dict[str, Any], answer: dict[str, Any] | None, value: Value) -> None:
    """Take one request in this format."""
    messages: list[Message] = []
    if instructions := text_of(request.get("instructions")):
        messages.append({"role": "system", "content": instructions})
    given = request.get("input")
    messages += as_chat([{"role": "user", "content": given}] if isinstance(given, str) else given or [])
    said = as_chat((answer or {}).get("output") or [])
    requests.add(Recorded("responses", messages, number=value.number), said[-1] if said else None)


def as_chat(items: Iterable[Any]) -> list[Message]:
    """Items as chat messages. What a model said in one go, text and calls, becomes one message."""
    messages: list[Message] = []
    for item in items:
        add_item(messages, item)
    return messages


def add_item(messages: list[Message], item: Any) -> None:
    """Add one item to the messages before it; thoughts and kinds that are not known are left out."""
    if not isinstance(item, dict):
        raise ValueError("an item must be an object")
    kind = item.get("type") or ("message" if "role" in item else None)
    call_id = str(item.get("call_id") or item.get("id") or "")
    if kind == "message":
        role, content = str(item.get("role")), text_of(item.get("content"))
        if role == "assistant":
            _assistant(messages)["content"] += content
        else:
            messages.append({"role": role, "content": content})
    elif kind == "function_call":
        add_calls(_assistant(messages), [call(call_id, str(item.get("name")), item.get("arguments") or "{}")])
    elif kind == "custom_tool_call":
        add_calls(_assistant(messages), [call(call_id, str(item.get("name")), {"input": item.get("input")})])
    elif kind == "local_shell_call":
        add_calls(_assistant(messages), [call(call_id, "local_shell", item.get("action") or {})])
    elif kind == "shell_call":
        commands = (item.get("action") or {}).get("commands") or []
        add_calls(_assistant(messages), [call(call_id, "shell", {"command": "\n".join(map(str, commands))})])
    elif kind == "apply_patch_call":
        add_calls(_assistant(messages), [call(call_id, "apply_patch", item.get("operation") or {})])
    elif kind in _OUTPUTS:
        messages.append(result(call_id, _output(item.get("output"))))


def _output(output: Any) -> str:
    if isinstance(output, dict):
        return text_of(output.get("content"))
    if isinstance(output, list) and all(isinstance(part, dict) and "outcome" in part for part in output):  # a shell's
        return "\n".join(str(part[key]) for part in output for key in ("stdout", "stderr") if part.get(key))
    return text_of(output)


def _assistant(messages: list[Message]) -> Message:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


FORMAT = Format("OpenAI Responses", knows, read)
