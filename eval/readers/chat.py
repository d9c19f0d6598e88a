"""OpenAI chat requests, one a line: `{"messages": […]}`, alone or as `request`/`body` beside a `response`.

Also a bare list of messages. Training files of the same form read alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.base import Format, Message, Recorded, Requests, Value, unwrap


def knows(value: Any) -> bool:
    """See `Format`."""
    return bool(_messages(value))


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    requests = Requests()
    for value in values:
        _, answer = unwrap(value.data)
        messages = _messages(value.data)
        if not messages:
            raise ValueError("no messages, or one without a role")
        said = next((c.get("message") for c in (answer or {}).get("choices") or [] if isinstance(c, dict)), None)
        add_request(requests, messages, said, value)
    return requests.conversations()


def add_request(requests: Requests, messages: list[Message], answer: Message | None, value: Value) -> None:
    """Take one chat request."""
    name = value.data.get("id") if isinstance(value.data, dict) else None
    found = Recorded("chat", [dict(m) for m in messages], id=name if isinstance(name, str) else "", number=value.number)
    requests.add(found, answer)


def _messages(value: Any) -> list[Message]:
    messages: Any = value if isinstance(value, list) else unwrap(value)[0].get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        return []
    return messages if all(isinstance(each.get("role"), str) for each in messages) else []


FORMAT = Format("OpenAI chat", knows, read)
