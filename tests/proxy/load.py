"""Agents at work on a proxy: many conversations at once, whose forwarded messages are watched from turn to turn."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.proxy.scripted import digest

CHAT = "/v1/chat/completions"
Json = dict[str, Any]


def conversation(name: str, num_turns: int, num_lines: int = 40) -> list[list[Json]]:
    """The requests of an agent that reads one file again and again, and edits it every fourth time."""
    lines = [f"    {name}_{number} = compute({number}, scale={number * 7})" for number in range(num_lines)]
    messages: list[Json] = [{"role": "user", "content": f"fix {name}"}]
    turns = []
    for turn in range(num_turns):
        call, text = {"name": "Read", "arguments": '{"file_path": "a.py"}'}, "\n".join(lines)
        if turn % 4 == 3:
            lines[turn % num_lines] = f"    changed_{turn} = {turn}"
            call, text = {"name": "Write", "arguments": '{"file_path": "a.py", "content": "x"}'}, "written"
        calls = [{"id": f"call_{turn}", "type": "function", "function": call}]
        messages += [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": text},
        ]
        turns.append(messages[:])
    return turns


class Agent:
    """One conversation: sends its turns one by one and looks at what was forwarded."""

    def __init__(self, name: str, num_turns: int) -> None:
        self._turns: Iterator[list[Json]] = iter(conversation(name, num_turns))
        self._before: Sequence[str] = ()

    async def turn(
        self, client: httpx.AsyncClient, counts: Counter[str], *, num_tries: int = 1, pause_s: float = 0.0
    ) -> None:
        """Send the next turn, again where the connection breaks, as agents' clients do; the model waits so long."""
        messages = next(self._turns)
        for _ in range(num_tries):
            started_s = time.monotonic()
            try:
                answer = await client.post(CHAT, json={"model": "m", "messages": messages, "pause_s": pause_s})
            except httpx.TransportError as error:
                counts[type(error).__name__] += 1
                continue
            finally:
                counts["slowest_ms"] = max(counts["slowest_ms"], int((time.monotonic() - started_s) * 1000))
            counts[str(answer.status_code)] += 1
            if answer.status_code != 200:
                continue
            if (bypass := answer.headers.get("x-sluice-bypass")) is not None:
                counts[f"bypass {bypass}"] += 1
            forwarded = answer.json()["choices"][0]["message"]["content"].split(" ")
            counts["slips"] += list(forwarded[: len(self._before)]) != list(self._before)
            counts["shortened"] += forwarded[-1] != digest(messages[-1])
            self._before = forwarded
            return
        counts["given up"] += 1


async def round_of(
    agents: Sequence[Agent],
    client: httpx.AsyncClient,
    counts: Counter[str],
    *,
    num_tries: int = 1,
    pause_s: float = 0.0,
) -> None:
    """One turn of each, at once."""
    await asyncio.gather(*(agent.turn(client, counts, num_tries=num_tries, pause_s=pause_s) for agent in agents))


def told(counts: Counter[str]) -> str:
    """Counts for people, in one line."""
    return ", ".join(f"{name}: {number}" for name, number in sorted(counts.items()))
