"""Conversations as agents hold them, in OpenAI chat form: some that are written down, and generated ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT
from sluice.compressor.conversation import Conversation
from sluice.compressor.evidence import Evidence

Json = dict[str, Any]

WORDS = ("def load(path):", "    return parse(path)", "", "}", "class Config:", "    timeout = 30", "# note", "x = 1")


def encode(message: Json) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


def call(call_id: str, name: str, **arguments: Any) -> Json:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        ],
    }


def result(call_id: str, content: str) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def numbered(lines: list[str], first: int = 1) -> str:
    """As Claude Code's Read shows a file."""
    return "\n".join(f"{number:6}→{line}" for number, line in enumerate(lines, first))


def file_lines(count: int, tag: str = "") -> list[str]:
    """A file whose lines are all different."""
    return [f"    value_{tag}{number} = compute({number}, scale={number * 7})" for number in range(count)]


def read_file(call_id: str, path: str, lines: list[str]) -> list[Json]:
    """A file is read."""
    return [call(call_id, "Read", file_path=path), result(call_id, numbered(lines))]


def evidence_of(messages: Sequence[Json]) -> Evidence:
    """What a conversation tells, all of it forwarded as it came."""
    conversation = Conversation(3, with_evidence=True)
    for message in messages:
        conversation.receive(OPENAI_CHAT.parse(encode(message)))
    assert conversation.evidence is not None
    return conversation.evidence


USER: Json = {"role": "user", "content": "please fix load_config in src/config.py"}
READ = [USER, *read_file("1", "/w/src/config.py", ["def load_config(path):", "    pass"])]
TASK: Json = {"role": "user", "content": "value_b7 is wrong: make compute return integers"}
"""Names a line of `file_lines(…, "b")`."""


@st.composite
def turns(draw: st.DrawFn, min_size: int = 1, max_size: int = 12) -> list[Json]:
    """The messages of a conversation that reads and edits a few small files again and again."""
    files = {
        name: draw(
            st.lists(
                st.sampled_from(WORDS) | st.integers(0, 40).map(lambda n: f"line {n} of code"), min_size=3, max_size=25
            )
        )
        for name in ("a.py", "src/b.py")
    }
    messages: list[Json] = [{"role": "user", "content": draw(st.sampled_from(["fix it", "add a test"]))}]
    for index in range(draw(st.integers(min_size, max_size))):
        name = draw(st.sampled_from(sorted(files)))
        lines = files[name]
        first = draw(st.integers(0, len(lines) - 1))
        action = draw(st.sampled_from(["read", "cat", "edit", "grep", "test", "user"]))
        call_id = f"call_{index}"
        if action == "read":
            messages += [
                call(call_id, "Read", file_path=name, offset=first + 1),
                result(call_id, numbered(lines[first:], first + 1)),
            ]
        elif action == "cat":
            messages += [call(call_id, "bash", command=f"cat {name}"), result(call_id, "\n".join(lines) + "\n")]
        elif action == "edit":
            lines = [*lines[:first], draw(st.sampled_from(WORDS)), *lines[first + 1 :]]
            files[name] = lines
            messages += [call(call_id, "Write", file_path=name, content="\n".join(lines)), result(call_id, "ok")]
        elif action == "grep":
            found = [f"{number}:{line}" for number, line in enumerate(lines, 1) if "e" in line]
            messages += [call(call_id, "Grep", pattern="e", path=name), result(call_id, "\n".join(found))]
        elif action == "test":
            dots = [f"progress {percent}%" for percent in range(0, draw(st.integers(1, 99)), 3)]
            messages += [
                call(call_id, "bash", command="pytest"),
                result(call_id, "\n".join([*dots, "1 failed", *lines])),
            ]
        else:
            messages.append({"role": "user", "content": "\n".join(lines)})
    return messages


def long_read(path: str, num_lines: int, tag: str) -> list[Json]:
    """A call that reads a file of so many lines, and its result."""
    return [call(tag, "Read", file_path=path), result(tag, numbered(file_lines(num_lines, tag)))]
