"""Small conversations, written by hand in the tests."""

from __future__ import annotations

import json
from typing import Any

from sluice.eval.data import Trace, TraceLine, parse_trace

Message = dict[str, Any]


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str, **more: Any) -> Message:
    return {"role": "user", "content": text, **more}


def assistant(text: str, *arguments: str | dict[str, Any], **more: Any) -> Message:
    """An assistant's message; each argument makes a call of the tool `run`."""
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": "run", "arguments": each if isinstance(each, str) else json.dumps(each)},
        }
        for number, each in enumerate(arguments)
    ]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {}), **more}


def tool(text: str, **more: Any) -> Message:
    return {"role": "tool", "tool_call_id": "call_0", "content": text, **more}


def recorded(*messages: Message, **more: Any) -> dict[str, Any]:
    return {"id": "t", "source": "tests", "agent": "made-up", "messages": list(messages), **more}


def trace_of(*messages: Message, **more: Any) -> Trace:
    return parse_trace(TraceLine("t.jsonl", 1, json.dumps(recorded(*messages, **more)).encode()))
