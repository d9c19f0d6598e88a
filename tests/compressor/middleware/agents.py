"""One conversation for all frameworks: a model on loopback that has an agent read real files, one of them twice."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sluice.compressor
from tests.proxy.servers import Exchange, Json, ScriptedUpstream, proxy, serving

TASK = "Find out where a turn's renditions are frozen, and say what freezes them."
MODEL = "gpt-4o"
_FOLDER = Path(sluice.compressor.__file__).parent
_READS = ("turn.py", "ledger.py", "turn.py", "markers.py", "ledger.py")
Run = Callable[[str], Awaitable[None]]
"""Plays the conversation with the model at a base URL."""


def read_file(file_path: str) -> str:
    """Read a file."""
    return Path(file_path).read_text()


def read_call(number: int) -> Json:
    """The arguments of the model's call of `read_file` with this number, from 0."""
    return {"file_path": str(_FOLDER / _READS[number])}


async def answer(exchange: Exchange) -> None:
    """Call `read_file` once more than the request holds results, and be done after the last file."""
    await exchange.whole(json.dumps(_responses(exchange) if "input" in exchange.json else _chat(exchange)).encode())


def _chat(exchange: Exchange) -> Json:
    number = sum(message["role"] == "tool" for message in exchange.json["messages"])
    message: Json = {"role": "assistant", "content": "It is in turn.py."}
    if number < len(_READS):
        function = {"name": _tool_name(exchange), "arguments": json.dumps(_arguments(exchange, number))}
        calls = [{"id": f"call_{number}", "type": "function", "function": function}]
        message = {"role": "assistant", "content": f"Reading file {number}.", "tool_calls": calls}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


def _responses(exchange: Exchange) -> Json:
    number = sum(item.get("type") == "function_call_output" for item in exchange.json["input"])
    item: Json
    if number < len(_READS):
        item = {
            "type": "function_call",
            "id": f"fc_{number}",
            "call_id": f"call_{number}",
            "name": "read_file",
            "arguments": json.dumps(read_call(number)),
            "status": "completed",
        }
    else:
        part = {"type": "output_text", "text": "It is in turn.py.", "annotations": []}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": MODEL,
        "output": [item],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 3,
            "output_tokens": 1,
            "total_tokens": 4,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


def _tool_name(exchange: Exchange) -> str:
    tools = exchange.json.get("tools") or []
    return str(tools[0]["function"]["name"]) if tools else "read_file"


def _arguments(exchange: Exchange, number: int) -> Json:
    """For an agent that has but a shell: the command that shows the file."""
    arguments = read_call(number)
    return {"command": f"cat {arguments['file_path']}"} if _tool_name(exchange) == "bash" else arguments


@asynccontextmanager
async def recording() -> AsyncIterator[ScriptedUpstream]:
    """The model's server; it keeps every request."""
    upstream = ScriptedUpstream()
    upstream.answer = answer
    async with serving(upstream) as url:
        upstream.url = url
        yield upstream


def messages_of(upstream: ScriptedUpstream) -> list[Any]:
    """The messages of each request that arrived, in order."""
    return [request.json.get("messages", request.json.get("input")) for request in upstream.exchanges]


async def assert_as_through_the_proxy(with_middleware: Run, without: Run) -> list[Any]:
    """Show that what arrives is the same, markers included; it is given back."""
    async with recording() as upstream:
        await with_middleware(f"{upstream.url}/v1")
        ours = messages_of(upstream)
    async with recording() as upstream, proxy(upstream.url, provider="openai") as client:
        await without(f"{client.base_url}/v1".replace("//v1", "/v1"))
        theirs = messages_of(upstream)
    assert len(ours) == len(_READS) + 1
    assert ours == theirs
    assert_shortened_and_frozen(ours)
    return ours


def assert_shortened_and_frozen(requests: list[Any]) -> None:
    """Show that a file that was read twice is sent once, and that what was sent is sent again."""
    for before, after in itertools.pairwise(requests):
        assert after[: len(before)] == before
    assert "lines as in message" in json.dumps(requests[-1])


async def in_thread(call: Callable[..., Any], *args: Any) -> None:
    """Run what blocks, so that the servers go on."""
    await asyncio.to_thread(call, *args)
