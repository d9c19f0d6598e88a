"""Recorded conversations: reads `.jsonl` and `.jsonl.zst`, and says which requests an agent made in them.

What is not of OpenAI's chat form (thoughts, notes of the recorder) is taken off here, so that no policy can see it.
Knows no policy and no figure.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard

from sluice.eval.errors import TraceError
from sluice.eval.message import Message, encode, read_message

WINDOW_BYTES = 128 * 2**20
"""What long conversations are compressed with: a decoder that allows less refuses them."""

CHAT_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal")
"""The keys of a message that an agent sends; all others are the recorder's."""


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One line of a file, not read yet: small enough to hand to a worker process."""

    path: str
    number: int
    data: bytes


class _Head(msgspec.Struct):
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a recorded conversation."""

    answer: int
    """Index of the assistant message that the agent's model gave to it."""
    history: tuple[int, ...]
    """Indexes of the messages in the request."""
    begins_request: bool
    """Whether the client itself broke with the turn before: the first turn, and the first after a compaction."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded conversation, cleaned."""

    id: str
    source: str
    agent: str
    messages: tuple[Message, ...]
    results: frozenset[int]
    """Indexes of the messages that are tool output: by role, or as the recorder noted for text-only agents."""
    starts: frozenset[int]
    """Indexes of the messages at which a new request begins, because the client compacted what was before."""

    def turns(self, max_turns: int | None = None) -> list[Turn]:
        """The requests behind the first `max_turns` assistant messages (all, if None).

        A compaction ends a request: what was before it is gone, but for the leading system messages, which agents
        send every time. An assistant message with nothing before it counts, but there is no request to judge.
        """
        num_system = 0
        while num_system < len(self.messages) and self.messages[num_system].role in ("system", "developer"):
            num_system += 1
        turns: list[Turn] = []
        start, num_answers, begins = 0, 0, True
        for index, message in enumerate(self.messages):
            if index in self.starts:
                start, begins = index, True
            if message.role != "assistant":
                continue
            num_answers += 1
            if max_turns is not None and num_answers > max_turns:
                break
            history = (*range(min(num_system, start)), *range(start, index))
            if history:
                turns.append(Turn(answer=index, history=history, begins_request=begins))
                begins = False
        return turns


def read_lines(path: Path) -> Iterator[TraceLine]:
    """Stream a file's lines, one conversation each; empty lines are skipped.

    Raises:
        TraceError: the file is not there, or is no zstd stream that this window can hold.
    """
    number = 0
    try:
        with path.open("rb") as file, _decompressed(path, file) as lines:
            for number, line in enumerate(lines, 1):
                if data := line.strip():
                    yield TraceLine(str(path), number, data)
    except OSError as error:
        raise TraceError(str(path), None, error.strerror or str(error)) from error
    except zstandard.ZstdError as error:
        raise TraceError(str(path), number + 1, f"not readable as zstd: {error}") from error


def read_traces(path: Path) -> Iterator[Trace]:
    """Stream a file's conversations.

    Raises:
        TraceError: a line is not a conversation; it names file and line.
    """
    for line in read_lines(path):
        yield parse_trace(line)


def agent_of(line: TraceLine) -> str | None:
    """The agent of a conversation, without reading the rest of it; None if it names none or cannot be read."""
    try:
        return msgspec.json.decode(line.data, type=_Head).agent
    except msgspec.MsgspecError:
        try:  # msgspec refuses halves of surrogate pairs
            agent = json.loads(line.data)["agent"]
        except (ValueError, KeyError, TypeError):
            return None
        return agent if isinstance(agent, str) else None


def parse_trace(line: TraceLine) -> Trace:
    """Read one line.

    Raises:
        TraceError: it is not a conversation.
    """
    try:
        data = json.loads(line.data)
        if not isinstance(data, dict):
            raise ValueError(f"a conversation must be an object, not {type(data).__name__}")
        return _trace(data)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are kinds of it
        raise TraceError(line.path, line.number, str(error)) from error


def _decompressed(path: Path, file: IO[bytes]) -> IO[bytes]:
    if path.suffix != ".zst":
        return file
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).stream_reader(file, read_across_frames=True)
    return io.BufferedReader(reader, 2**20)


def _trace(data: dict[str, Any]) -> Trace:
    recorded = data.get("messages")
    if not isinstance(recorded, list):
        raise ValueError("messages must be a list")
    messages, starts, results = [], set(), set(_indexes(data, len(recorded)))
    for index, item in enumerate(recorded):
        try:
            if not isinstance(item, dict):
                raise ValueError("a message must be an object with a role")
            message = read_message(encode({key: item[key] for key in CHAT_KEYS if key in item}))
        except ValueError as error:
            raise ValueError(f"message {index}: {error}") from error
        messages.append(message)
        if item.get("compaction_summary"):
            starts.add(index)
        if message.role in ("tool", "function"):
            results.add(index)
    names = [data.get(key) for key in ("id", "source", "agent")]
    for key, value in zip(("id", "source", "agent"), names, strict=True):
        if not isinstance(value, str):
            raise ValueError(f"{key} must be a string, not {value!r}")
    return Trace(
        id=str(names[0]),
        source=str(names[1]),
        agent=str(names[2]),
        messages=tuple(messages),
        results=frozenset(results),
        starts=frozenset(starts),
    )


def _indexes(data: dict[str, Any], num_messages: int) -> list[int]:
    indexes = data.get("observation_indexes") or []
    if not isinstance(indexes, list):
        raise ValueError("observation_indexes must be a list")
    for index in indexes:
        if not isinstance(index, int) or not 0 <= index < num_messages:
            raise ValueError(f"observation_indexes: {index!r} is no index of one of {num_messages} messages")
    return indexes
