"""An upstream to be run as a process: it says of each request what it got, as slowly and as long as the request asks.

Its answer is a text of one short digest for each message that came, so that a client can tell whether the messages of
one turn begin with those of the turn before. `num_parts`, `part_bytes` and `pause_s` in the request ask for a stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import Any

import uvicorn

from tests.proxy.servers import DONE, Exchange, ScriptedUpstream, Send, chunk, completion


async def answer(exchange: Exchange) -> None:
    """Answer a chat request; anything else gets an empty object."""
    if exchange.path != "/v1/chat/completions":
        await exchange.whole(b"{}")
        return
    asked = exchange.json
    said = " ".join(digest(message) for message in asked["messages"])
    if not asked.get("stream"):
        await asyncio.sleep(asked.get("pause_s", 0))
        await exchange.whole(json.dumps(completion(said)).encode())
        return
    await exchange.start("text/event-stream")
    await exchange.part(chunk(said))
    for _ in range(asked.get("num_parts", 0)):
        await asyncio.sleep(asked.get("pause_s", 0))
        await exchange.part(chunk("x" * asked.get("part_bytes", 1)))
    await exchange.part(DONE)
    await exchange.end()


def digest(message: Any) -> str:
    """What stands for a message in an answer."""
    return hashlib.blake2b(json.dumps(message).encode(), digest_size=5).hexdigest()


class _Forgetful(ScriptedUpstream):
    """Keeps nothing of what it got."""

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        await super().__call__(scope, receive, send)
        self.exchanges.clear()


if __name__ == "__main__":
    upstream = _Forgetful()
    upstream.answer = answer
    uvicorn.run(upstream, port=int(sys.argv[1]), log_config=None, access_log=False, timeout_keep_alive=60)
