"""What the engine's server is asked in its tests, and what it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import openai

HI = [{"role": "user", "content": "hi"}]


async def ask(client: openai.AsyncOpenAI, **arguments: Any) -> Any:
    return await client.chat.completions.create(**{"model": "tiny", "messages": HI, "max_tokens": 12, **arguments})


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    lines = (await http.get("/metrics")).text.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


async def until(http: httpx.AsyncClient, holds: Callable[[dict[str, float]], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds(await figures(http)):  # noqa: ASYNC110 - the engine tells its figures only when asked
            await asyncio.sleep(0.005)


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    }
]

WIDE: dict[str, Any] = {
    "type": "object",
    "properties": {f"p{number}": {"type": "integer"} for number in range(3000)},
    "required": ["p2999"],
}
"""More ways to go on than the grammar's library follows, which shows once it has begun."""
