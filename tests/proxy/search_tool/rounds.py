"""A proxy with the tool, an upstream that is scripted round by round, and clients of each wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import WIRES
from tests.proxy.search_tool.answers import (
    Json,
    Piece,
    events,
    parse_events,
    request,
    seen,
    whole,
)
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy

wires = pytest.mark.parametrize("wire", [WireName.MESSAGES, WireName.CHAT, WireName.RESPONSES])
streams = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
HI = [{"role": "user", "content": "why does the retry wait so long?"}]


@asynccontextmanager
async def searching(upstream: ScriptedUpstream, root: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    given = {"search_tool": "fast", "search_roots": (root,), "search_cache_dir": root.parent / "cache", **settings}
    async with proxy(upstream.url, **given) as client:
        yield client


def script(
    upstream: ScriptedUpstream, wire: WireName, rounds: Sequence[Sequence[Piece] | int], *, error: str = "no"
) -> None:
    """Have the upstream answer its next requests so, one after another; a number is an error's status."""
    refusal = json.dumps({"type": "error", "error": {"message": error}}).encode()
    coming = iter(enumerate(rounds))

    async def answer(exchange: Exchange) -> None:
        number, pieces = next(coming)
        if isinstance(pieces, int):
            await exchange.whole(refusal, pieces)
        elif exchange.json.get("stream"):
            await exchange.start("text/event-stream")
            data = events(wire, pieces, number)
            for start in range(0, len(data), 700):
                await exchange.part(data[start : start + 700])
            await exchange.end()
        else:
            await exchange.whole(json.dumps(whole(wire, pieces, number)).encode())

    upstream.answer = answer


async def ask(
    client: httpx.AsyncClient, wire: WireName, messages: Sequence[Json], *, stream: bool, **more: Any
) -> Json:
    """What the client sees of an answer."""
    body = {**request(wire, messages, stream=stream), **more}
    answer = await client.post(WIRES[wire].path, json=body)
    assert answer.status_code == 200, answer.text
    return seen(wire, parse_events(answer.content)) if stream else answer.json()


def forwarded(exchange: Exchange) -> list[Json]:
    body = exchange.json
    return list(body.get("messages") or body.get("input"))


def tools_of(exchange: Exchange) -> list[str]:
    return [tool.get("name") or tool["function"]["name"] for tool in exchange.json.get("tools") or []]


def found_in(messages: Sequence[Json], call_id: str) -> str:
    """The result of a call in a request."""
    for message in messages:
        blocks = message.get("content") if isinstance(message.get("content"), list) else []
        for part in (message, *blocks):
            if call_id in (part.get("tool_use_id"), part.get("tool_call_id")):
                return str(part["content"])
            if part.get("type") == "function_call_output" and part.get("call_id") == call_id:
                return str(part["output"])
    raise AssertionError(f"{call_id} has no result")
