"""What a benchmark of the proxy sends: bodies of given sizes, and turns of a long conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LINES_PER_READ = 25


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind."""

    name: str
    bodies: list[bytes]
    """Sent one after the other; the last ones are measured."""
    num_warm: int
    """Bodies at the beginning that are sent unmeasured, so that what is measured is a conversation under way."""
    num_clients: int = 1
    pace_ms: float = 0.0
    """Pause before each event of the answer, in milliseconds; 0: all come at once."""


def messages(num: int, tag: str = "") -> list[dict[str, Any]]:
    """A conversation that reads files, every fourth of them once more."""
    found: list[dict[str, Any]] = [{"role": "user", "content": f"go {tag}"}]
    while len(found) < num:
        index = len(found) // 2
        file = f"src/{tag}{index - 3 if index % 4 == 3 else index}.py"
        function = {"name": "Read", "arguments": json.dumps({"file_path": file})}
        call = {"id": f"c{index}", "type": "function", "function": function}
        found.append({"role": "assistant", "content": None, "tool_calls": [call]})
        lines = [
            f"{number:6}→    value_{number} = load({file!r}, {number * 7})" for number in range(1, _LINES_PER_READ)
        ]
        found.append({"role": "tool", "tool_call_id": f"c{index}", "content": "\n".join(lines)})
    return found[:num]


def body(of: list[dict[str, Any]]) -> bytes:
    """A streamed chat request."""
    return json.dumps({"model": "gpt-4o", "stream": True, "messages": of}).encode()


def turns(num_messages: int, num: int, tag: str, *, pace_ms: float = 0.0) -> Workload:
    """The next turns of one conversation that is `num_messages` long; the turn before them is sent unmeasured."""
    whole = messages(num_messages + 2 * num + 1, tag)
    return Workload(
        f"turn at {num_messages} messages{_paced(pace_ms)}",
        [body(whole[: num_messages - num_messages % 2 + 1 + 2 * index]) for index in range(num + 1)],
        num_warm=1,
        pace_ms=pace_ms,
    )


def sized(num_bytes: int, num: int, tag: str, *, num_clients: int = 1, pace_ms: float = 0.0) -> Workload:
    """Requests of a size, each of another conversation."""
    bodies = []
    for index in range(num + num_clients):
        words = "some words of a prompt " * (max(num_bytes - 90, 1) // 23)
        bodies.append(body([{"role": "user", "content": f"{tag} {index} {words}"}]))
    size = f"{num_bytes // 1000} kB" if num_bytes < 10**6 else f"{num_bytes // 10**6} MB"
    clients = f"{num_clients} client{'s' * (num_clients > 1)}"
    return Workload(f"{size}, {clients}{_paced(pace_ms)}", bodies, num_clients, num_clients, pace_ms)


def standard(num: int, tag: str) -> Iterator[Workload]:
    """What `sluice bench proxy` runs: answers that come at once, and, where it says so, event by event.

    Args:
        num: requests of a workload; large and paced ones get fewer.
        tag: another one makes other conversations, so that nothing is known of them.
    """
    fewer = max(4, num // 4)
    yield sized(2_000, 2 * num, tag)
    yield sized(2_000, fewer, tag, pace_ms=1)
    yield sized(200_000, num, tag)
    yield sized(2_000_000, fewer, tag)
    yield turns(100, num, f"{tag}a")
    yield turns(300, num, f"{tag}b")
    yield turns(300, fewer, f"{tag}c", pace_ms=1)
    yield turns(1_000, num, f"{tag}d")
    yield sized(20_000, 2 * num, tag, num_clients=16)
    yield sized(20_000, max(128, num), tag, num_clients=64, pace_ms=10)


def _paced(pace_ms: float) -> str:
    return f", event every {pace_ms:g} ms" if pace_ms else ""
