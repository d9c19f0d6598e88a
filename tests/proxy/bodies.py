"""Whole requests as agents send them, in every dialect: generated conversations with all that may not be touched."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from sluice.compressor import Dialect
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.wires import CHAT, MESSAGES, RESPONSES
from tests.compressor.conversations import turns
from tests.compressor.in_dialects import EPHEMERAL, as_items, as_messages

Json = dict[str, Any]
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
TOOLS: list[Json] = [{"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}]
CLAUDE_TOOLS: list[Json] = [{"name": "Read", "input_schema": {"type": "object"}, "cache_control": EPHEMERAL}]
ITEM_TOOLS: list[Json] = [{"type": "function", "name": "Read", "parameters": {}}, {"type": "web_search"}]


@dataclass(frozen=True)
class Spoken:
    """One dialect: how conversations are said in it, and what stands around and between their messages."""

    wire: Wire
    say: Callable[[Sequence[Json]], list[Json]]
    around: Json
    """Fields beside the messages."""
    extras: Sequence[Json]
    """Messages of the model's that no agent's tool answers."""
    decorate: Callable[[Json, int], None]
    """Puts into a message what may stand in it as well; the second argument tells messages apart."""

    @property
    def dialect(self) -> Dialect:
        assert self.wire.dialect is not None
        return self.wire.dialect

    @property
    def field(self) -> str:
        assert self.wire.shape.list_field is not None
        return self.wire.shape.list_field


def _decorate_chat(message: Json, number: int) -> None:
    if message["role"] == "assistant":
        message["reasoning_content"] = "hm …"
        message["annotations"] = []
    elif message["role"] == "tool" and number % 3 == 0:
        message["content"] = [{"type": "text", "text": message["content"]}]
    elif message["role"] == "user" and number % 2:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}}
        message["content"] = [{"type": "text", "text": message["content"]}, image]


def _decorate_messages(message: Json, number: int) -> None:
    content = message["content"]
    if message["role"] == "assistant" and isinstance(content, list):
        content.insert(1, {"type": "redacted_thinking", "data": "gAAA"})
        if number % 2:
            search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
            found = {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "x\ny\nz"}
            result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]}
            content[2:2] = [search, result]
    elif isinstance(content, list):
        for block in content:
            if block.get("type") == "tool_result" and number % 3 == 1:
                block["is_error"] = number % 2 == 0
        if number % 4 == 2:
            content.append({"type": "image", "source": PNG})


def _decorate_items(item: Json, number: int) -> None:
    item["id"] = f"item_{number}"
    if item.get("type") == "function_call" and number % 2:
        item["status"] = "completed"


SPOKEN = {
    "chat": Spoken(
        CHAT,
        lambda chat: json.loads(json.dumps(chat)),
        {"model": "gpt-4o", "tools": TOOLS, "temperature": 0.5, "seed": 1e2, "x": {"y": [None, "\\u00e9"]}},
        [{"role": "assistant", "content": None, "refusal": "no"}],
        _decorate_chat,
    ),
    "messages": Spoken(
        MESSAGES,
        lambda chat: _unmarked(as_messages(chat)),
        {
            "model": "claude-sonnet-4",
            "max_tokens": 9,
            "tools": CLAUDE_TOOLS,
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
                {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            ],
            "thinking": {"type": "enabled", "budget_tokens": 5},
            "metadata": {"user_id": "u"},
        },
        [{"role": "system", "content": "The date has changed."}],
        _decorate_messages,
    ),
    "responses": Spoken(
        RESPONSES,
        as_items,
        {"model": "gpt-5.2", "instructions": "be brief", "tools": ITEM_TOOLS, "store": False, "include": ["x"]},
        [
            {"type": "compaction", "encrypted_content": "gAAA\nB"},
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "q"},
            },
            {"type": "mcp_call", "id": "mcp_1", "name": "n", "server_label": "s", "arguments": "{}", "output": "a\nb"},
        ],
        _decorate_items,
    ),
}


def _unmarked(messages: list[Json]) -> list[Json]:
    for message in messages:
        for block in message["content"] if isinstance(message["content"], list) else ():
            block.pop("cache_control", None)
    return messages


@st.composite
def requests(draw: st.DrawFn, spoken: Spoken, max_size: int = 8) -> list[bytes]:
    """The bodies of one conversation's turns, each beginning with all the messages of the one before it."""
    chat = [{"role": "user", "content": f"task {uuid.UUID(int=draw(st.integers(0, 2**128 - 1)))}"}]
    chat += draw(turns(max_size=max_size))
    messages = said(spoken, chat)
    # What the model alone says stands at any place where it speaks; extras are what no rule here knows.
    for index in sorted(draw(st.sets(st.integers(1, len(messages)), max_size=3)), reverse=True):
        if _ends(spoken, messages[:index]) and not _ends(spoken, messages[: index + 1]):
            messages.insert(index, dict(draw(st.sampled_from(list(spoken.extras)))))
    layout = draw(st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}]))
    return [written(spoken, messages[:end], layout) for end in _turn_ends(spoken, messages)]


def said(spoken: Spoken, chat: Sequence[Json]) -> list[Json]:
    """A conversation in a dialect, with all that may stand in its messages."""
    messages = spoken.say(chat)
    for number, message in enumerate(messages):
        spoken.decorate(message, number)
    return messages


def _ends(spoken: Spoken, messages: Sequence[Json]) -> bool:
    """Whether a request may end here: it is the model's turn to speak."""
    return spoken.dialect.parse(json.dumps(messages[-1]).encode()).role in ("user", "tool")


def _turn_ends(spoken: Spoken, messages: Sequence[Json]) -> Iterator[int]:
    for end in range(1, len(messages) + 1):
        is_last = end == len(messages) or not _ends(spoken, messages[: end + 1])
        if is_last and _ends(spoken, messages[:end]):
            yield end


def written(spoken: Spoken, messages: Sequence[Json], layout: Any = None) -> bytes:
    """A request's body."""
    messages = json.loads(json.dumps(messages))
    if spoken.wire is MESSAGES:  # Claude Code marks its newest message, and that one alone
        newest = messages[-1]
        if isinstance(newest["content"], str):
            newest["content"] = [{"type": "text", "text": newest["content"]}]
        newest["content"][-1]["cache_control"] = EPHEMERAL
    fields = list(spoken.around.items())
    return json.dumps(dict([*fields[:2], (spoken.field, messages), *fields[2:]]), **(layout or {})).encode()
