"""What `sluice serve --record` wrote: one request a line, with its wire, its time and the usage of its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers import anthropic, chat, responses
from sluice.eval.readers.base import Format, Recorded, Requests, Value


def knows(value: Any) -> bool:
    """See `Format`."""
    return isinstance(value, dict) and value.get("format") == "sluice-record-1"


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    requests = Requests()
    for value in values:
        if not knows(value.data):
            raise ValueError("a recorded request must name the format sluice-record-1")
        request, wire = value.data.get("request"), value.data.get("wire")
        if not isinstance(request, dict):
            continue  # recorded without content
        if wire == "messages":
            anthropic.add_request(requests, request, None, value)
        elif wire == "responses":
            if not responses.is_continued(request):  # what it sends is no whole request
                responses.add_request(requests, request, None, value)
        elif wire == "chat":
            chat.add_request(requests, request.get("messages") or [], None, Value(value.number, {}))
        else:
            raise ValueError(f"no wire is named {wire!r}")
    return requests.conversations()


FORMAT = Format("sluice serve --record", knows, read)
