"""Publishes KV events as vLLM does, and loses some on demand."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from sluice.backend.router.kv_events import replay_endpoint

STORED = {
    "type": "BlockStored", "block_hashes": [11, 12], "parent_block_hash": None, "token_ids": [1, 2, 3, 4],
    "block_size": 2, "lora_id": None, "medium": "GPU", "lora_name": None,
}  # fmt: skip


def batch(*events: Any, at_s: float = 1.0) -> bytes:
    return msgspec.msgpack.encode([at_s, list(events), 0])


class Publisher:
    """Publishes as vLLM does."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.asyncio.Context()
        self.socket = self.context.socket(zmq.PUB)
        self.socket.bind(endpoint)
        self.replays = self.context.socket(zmq.ROUTER)
        self.replays.bind(replay_endpoint(endpoint))
        self.batches: list[bytes] = []
        self.kept_from = 0
        self.answering = asyncio.create_task(self.answer())

    async def answer(self) -> None:
        while True:
            client, _, start = await self.replays.recv_multipart()
            for number in range(max(self.kept_from, int.from_bytes(start, "big")), len(self.batches)):
                await self.replays.send_multipart((client, b"", b"", number.to_bytes(8, "big"), self.batches[number]))
            await self.replays.send_multipart((client, b"", b"", b"\xff" * 8, b""))

    async def publish(self, block: int, *, is_lost: bool = False) -> None:
        event = {**STORED, "block_hashes": [block], "token_ids": [block, block]}
        self.batches.append(batch(event, at_s=time.time()))
        if not is_lost:
            number = len(self.batches) - 1
            await self.socket.send_multipart((b"", number.to_bytes(8, "big"), self.batches[number]))

    async def aclose(self) -> None:
        self.answering.cancel()
        await asyncio.gather(self.answering, return_exceptions=True)
        self.context.destroy(linger=0)
