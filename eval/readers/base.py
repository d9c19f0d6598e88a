"""What a reader of recorded conversations is: it tells its format by content, and turns it into chat messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from sluice.eval.message import less_cache_control

Message = dict[str, Any]
"""A message in OpenAI's chat form; `compaction_summary` marks one at which a new request begins."""

_BILLING_LINE = re.compile(r"^x-anthropic-billing-header:[^\n]*\n*")


@dataclass(frozen=True, slots=True)
class Value:
    """One JSON value of a file."""

    number: int
    """The line on which it begins, from 1."""
    data: Any


@dataclass(slots=True)
class Recorded:
    """One conversation as it was found."""

    agent: str
    messages: list[Message]
    id: str = ""
    """As the agent named it; empty where it did not."""
    number: int = 1
    """The line on which it begins."""
    observation_indexes: list[int] = field(default_factory=list)
    """User messages that are tool output, of agents that speak in text alone."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: str
    knows: Callable[[Any], bool]
    """Whether a file of which this is a value is of the format."""
    read: Callable[[Iterable[Value]], Iterator[Recorded]]
    """The conversations of such a file. Raises ValueError where the values are not of the format."""


def text_of(content: Any) -> str:
    """The text of a content: a string, or parts of which those with a text count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, (str, dict))
        )
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def call(call_id: str, name: str, arguments: Any) -> Message:
    """A tool call in the chat form; arguments that are no string are written as JSON."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": written}}


def result(call_id: str, content: str) -> Message:
    """A tool's result in the chat form."""
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def add_calls(message: Message, calls: list[Message]) -> None:
    """Give an assistant's message more calls."""
    if calls:
        message.setdefault("tool_calls", []).extend(calls)


class Requests:
    """Puts conversations together from requests, each of which repeats the messages of the one before.

    A request whose messages begin with all those of an earlier one continues that conversation; any other begins one.
    Marks for the cache and a billing line, which clients move or change with each request, tell no messages apart.
    """

    def __init__(self) -> None:
        self._found: list[tuple[Recorded, Message | None]] = []
        self._ends: dict[bytes, int] = {}

    def add(self, conversation: Recorded, answer: Message | None = None) -> None:
        """Take one request; `answer` is what the model said to it, where that is known."""
        chain = blake2b(conversation.agent.encode(), digest_size=16)
        prefixes = []
        for message in conversation.messages:
            chain.update(json.dumps(_lasting(message), sort_keys=True).encode())
            prefixes.append(chain.digest())
        if not prefixes:
            return
        place = next((self._ends.pop(each) for each in reversed(prefixes) if each in self._ends), None)
        if place is None:
            place = len(self._found)
            self._found.append((conversation, answer))
        else:
            first = self._found[place][0]
            conversation.id, conversation.number = first.id or conversation.id, first.number
            self._found[place] = (conversation, answer)
        self._ends[prefixes[-1]] = place

    def conversations(self) -> Iterator[Recorded]:
        """Those that were found, in the order in which they began."""
        for conversation, answer in self._found:
            if answer is not None:
                conversation.messages.append(answer)
            yield conversation


def _lasting(message: Message) -> Message:
    """A message less what its client changes from request to request."""
    lasting: Message = less_cache_control(message)
    content = lasting.get("content")
    if lasting.get("role") in ("system", "developer"):
        lasting["content"] = _BILLING_LINE.sub("", text_of(content))
    elif isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        only = content[0]  # a list around a single text is there to carry a mark, and goes with it
        if only.keys() == {"type", "text"} and only["type"] == "text":
            lasting["content"] = only["text"]
    return lasting


def unwrap(value: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A request and its answer, from a line that is the request, or holds it as `request` or `body`."""
    if not isinstance(value, dict):
        return {}, None
    inner = next((value[key] for key in ("request", "body") if isinstance(value.get(key), dict)), value)
    answer = value.get("response")
    if isinstance(answer, dict) and isinstance(answer.get("body"), dict):  # as in the files of batch jobs
        answer = answer["body"]
    return inner, answer if isinstance(answer, dict) else None
