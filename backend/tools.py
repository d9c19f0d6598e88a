"""Tool calls: told to models whose template has no place for them, and found in what models write.

Reads the forms of the families that are served: `<tool_call>…</tool_call>` around an object or a list (Qwen, SmolLM2),
and an answer that is nothing but such JSON (Llama 3, Mistral). Knows no HTTP and no engine.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from sluice.backend.completion import TextOutput, ToolCall
from sluice.backend.detokenizer import StopStrings
from sluice.backend.errors import InvalidRequestError
from sluice.backend.surrogates import whole

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"

_INSTRUCTIONS = """You can call these functions:
{functions}
To call some, answer with nothing but this, and wait for the results:
<tool_call>[{{"name": "function_name", "arguments": {{"argument": "value"}}}}]</tool_call>"""


def check_tools(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the tools. Raises InvalidRequestError for one that is no function with a name."""
    names = []
    for index, tool in enumerate(tools):
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise InvalidRequestError(f"tools[{index}] is {tool!r}; it must be a function with a name", "tools")
        names.append(name)
    return names


def tell_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """The messages for a template that knows no tools: what there is to call, and earlier calls, as text."""
    told = [_told(message) for message in messages]
    if tools:
        functions = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        text = _INSTRUCTIONS.format(functions=functions)
        if told and told[0]["role"] in ("system", "developer"):
            told[0]["content"] += f"\n\n{text}"
        else:
            told.insert(0, {"role": "system", "content": text})
    return told


def with_object_arguments(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages for a template that knows tools: calls' arguments as objects, which such templates expect."""
    out = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": _arguments(call["function"].get("arguments"))}}
            for call in _calls(message)
        ]
        out.append({**message, "tool_calls": calls} if calls else dict(message))
    return out


def call_schema(tools: Sequence[Mapping[str, Any]], name: str | None) -> dict[str, Any]:
    """JSON schema of a call of one tool, or of any where `name` is None.

    Raises InvalidRequestError for an unknown one.
    """
    wanted = [tool["function"] for tool in tools if name in (None, tool["function"]["name"])]
    if not wanted:
        what = (
            "asks for a call, and there are no tools" if name is None else f"names {name!r}, which is none of the tools"
        )
        raise InvalidRequestError(f"tool_choice {what}", "tool_choice")
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": function.get("parameters") or {"type": "object"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for function in wanted
        ]
    }


async def find_tool_calls(outputs: AsyncGenerator[TextOutput], names: Sequence[str]) -> AsyncGenerator[TextOutput]:
    """The same stream, calls of the tools `names` taken out of the text; it is held back only while it may be one.

    What is held back begins with an empty piece: that the answer has begun is not held back.
    """
    finders: dict[int, ToolCallFinder] = {}
    async with aclosing(outputs):
        async for output in outputs:
            is_first = output.index not in finders
            finder = finders.setdefault(output.index, ToolCallFinder(names))
            text = finder.push(output.text)
            calls: list[ToolCall] = []
            reason = output.finish_reason
            if reason is not None:
                rest, calls = finder.finish()
                text += rest
                reason = "tool_calls" if calls else reason
            if text or reason is not None or output.logprobs or is_first:
                yield dataclasses.replace(output, text=text, finish_reason=reason, tool_calls=tuple(calls))


class ToolCallFinder:
    """Separates one answer's text from the calls in it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._before = StopStrings([_OPEN])
        self._text = ""
        """All that came."""
        self._num_pushed = 0
        """Characters of it that were looked at."""
        self._num_released = 0

    def push(self, text: str) -> str:
        """Text that is certainly not part of a call."""
        self._text += text
        if self._text.lstrip()[:1] in ("", "{", "["):  # may be nothing but a call
            return ""
        released = self._before.push(self._text[self._num_pushed :])
        self._num_pushed = len(self._text)
        self._num_released += len(released)
        return released

    def finish(self) -> tuple[str, list[ToolCall]]:
        """What is left: text, and the calls; what looks like a call and is none is text."""
        rest = self._text[self._num_released :]
        if self._num_released == 0 and rest.lstrip().startswith(("{", "[")):
            calls = self._read(rest)
        else:
            parts = rest.split(_OPEN)[1:]
            read = [self._read(part.partition(_CLOSE)[0]) for part in parts]
            calls = [call for part in read for call in part] if all(read) else []
        return ("", calls) if calls else (rest, [])

    def _read(self, text: str) -> list[ToolCall]:
        """The calls in a JSON object or list of objects; none if there is anything else in it."""
        calls = []
        try:
            value = json.loads(text)
            for item in value if isinstance(value, list) else [value]:
                if not isinstance(item, dict) or item.get("name") not in self._names:
                    return []
                arguments = item.get("arguments", item.get("parameters", {}))
                text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
                calls.append(ToolCall(item["name"], whole(text)))
        except (ValueError, RecursionError):  # small models may open brackets without end
            return []
        return calls


def _told(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = [
        {"name": call["function"].get("name"), "arguments": _arguments(call["function"].get("arguments"))}
        for call in _calls(message)
    ]
    content = message["content"] + (f"{_OPEN}{json.dumps(calls, ensure_ascii=False)}{_CLOSE}" if calls else "")
    return {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": content}


def _calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls or () if isinstance(call, dict) and isinstance(call.get("function"), dict)]


def _arguments(arguments: object) -> object:
    """OpenAI sends them as JSON text."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments
