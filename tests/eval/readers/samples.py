"""Small conversations in the shapes of the real files, and what writes and reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sluice.eval.data import Trace, parse_trace
from sluice.eval.readers import read_conversations

Json = Any

CALL = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": '{"path": "a.py"}'}}
CHAT = [
    {"role": "system", "content": "be good"},
    {"role": "user", "content": "fix it"},
    {"role": "assistant", "content": "look", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "def f(): ..."},
]
BLOCKS = [
    {"role": "user", "content": "fix it"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "look"},
            {"type": "tool_use", "id": "c1", "name": "Read", "input": {"path": "a.py"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "def f(): ..."}]},
            {"type": "text", "text": "go on"},
        ],
    },
]
ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
    {"type": "reasoning", "summary": [], "encrypted_content": "zz"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "look"}]},
    {"type": "function_call", "name": "Read", "arguments": '{"path": "a.py"}', "call_id": "c1"},
    {"type": "function_call_output", "call_id": "c1", "output": "def f(): ..."},
]


def lines(path: Path, *values: Json) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def document(path: Path, value: Json) -> Path:
    path.write_text(json.dumps(value, indent=2))
    return path


def read(path: Path) -> list[Trace]:
    return [parse_trace(line) for line in read_conversations(path)]


def told(trace: Trace) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in trace.messages]


def claude(kind: str, message: Json, **more: Json) -> Json:
    head = {"parentUuid": None, "isSidechain": False, "userType": "external", "cwd": "/w", "sessionId": "s1"}
    return {**head, "version": "2.1.0", "type": kind, "message": message, "uuid": "u", "timestamp": "t", **more}
