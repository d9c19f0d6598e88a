"""vLLM's KV events: read from their wire form, and heard over ZeroMQ without a gap.

A batch is `[time, [event, …], rank]` in MessagePack; an event is a map with its kind under `type`, or, in older
releases, an array that begins with it. Each batch is numbered; one that was missed is asked for again. Needs the
extra `router` (pyzmq), imported where it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from sluice.backend.errors import RouterError

_END = b"\xff" * 8
_STORED_FIELDS = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium")
_REMOVED_FIELDS = ("block_hashes", "medium")
_REPLAY_TIMEOUT_MS = 2_000


@dataclass(frozen=True, slots=True)
class BlocksStored:
    """Blocks that a replica now holds."""

    blocks: tuple[int | bytes, ...]
    """The replica's own names for them, in order."""
    parent: int | bytes | None
    """The block before the first; None at a prompt's beginning."""
    token_ids: tuple[int, ...]
    block_tokens: int
    medium: str = "GPU"
    group: int | None = None


@dataclass(frozen=True, slots=True)
class BlocksRemoved:
    """Blocks that a replica no longer holds, in one tier."""

    blocks: tuple[int | bytes, ...]
    medium: str = "GPU"
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Cleared:
    """A replica holds nothing any more."""


KvEvent = BlocksStored | BlocksRemoved | Cleared


def replay_endpoint(endpoint: str) -> str:
    """Where missed batches are asked for: a path's with `.replay`, a port's is the next one."""
    if endpoint.startswith("ipc://"):
        return f"{endpoint}.replay"
    head, _, port = endpoint.rpartition(":")
    return f"{head}:{int(port) + 1}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that were published together."""

    at_s: float
    """When, by the replica's clock."""
    events: tuple[KvEvent, ...]


def read_batch(payload: bytes) -> Batch:
    """Read a batch; kinds of events that are not known are left out.

    Raises:
        RouterError: it is no batch.
    """
    try:
        batch = msgspec.msgpack.decode(payload)
        return Batch(float(batch[0]), tuple(event for raw in batch[1] if (event := _read(raw)) is not None))
    except (msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
        raise RouterError(f"not a batch of KV events: {error}") from None


def _read(raw: Any) -> KvEvent | None:
    if isinstance(raw, dict):
        kind, fields = raw.get("type"), raw
    else:
        kind = raw[0]
        names = _STORED_FIELDS if kind == "BlockStored" else _REMOVED_FIELDS
        fields = dict(zip(names, raw[1:], strict=False))
    if kind == "AllBlocksCleared":
        return Cleared()
    if kind not in ("BlockStored", "BlockRemoved"):
        return None
    blocks, medium, group = tuple(fields["block_hashes"]), fields.get("medium") or "GPU", fields.get("group_idx")
    if kind == "BlockRemoved":
        return BlocksRemoved(blocks, medium, group)
    return BlocksStored(
        blocks, fields["parent_block_hash"], tuple(fields["token_ids"]), int(fields["block_size"]), medium, group
    )


class KvEventSubscriber:
    """Hears one replica's events, from the first that it still has (vLLM keeps the last 10,000 batches).

    Args:
        endpoint: where it publishes (`tcp://host:port`, `ipc:///path`).
        on_event: called with each event in order.
        on_lost: called where batches are gone for good, or were before the first that is heard: what the replica holds
            is known in part alone, until it holds nothing.
    """

    def __init__(self, endpoint: str, on_event: Callable[[KvEvent], None], on_lost: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._on_event = on_event
        self._on_lost = on_lost
        self._next = 0
        self._heard_until_s = 0.0

    async def run(self) -> None:
        """Hear events until cancelled. The first batch heard makes it ask for all before it.

        Raises:
            RouterError: pyzmq is not installed, or the endpoint is none.
        """
        try:
            import zmq
            import zmq.asyncio
        except ModuleNotFoundError:
            raise RouterError("KV events need pyzmq; run: pip install 'sluicegate[router]'") from None
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            socket.connect(self._endpoint)
            await self._replay(context, 0)  # what it holds already
            while True:
                _, number, payload = await socket.recv_multipart()
                await self._receive(context, int.from_bytes(number, "big"), payload)
        except zmq.ZMQError as error:
            raise RouterError(f"cannot hear KV events at {self._endpoint}: {error}") from None
        finally:
            socket.close(linger=0)
            context.destroy(linger=0)

    async def _receive(self, context: Any, number: int, payload: bytes) -> None:
        if number < self._next:
            if _time_of(payload) <= self._heard_until_s:
                return  # heard already, in a replay
            self._on_event(Cleared())  # it counts from the beginning again: it has been restarted
            self._next = 0
        if number != self._next and not await self._replay(context, self._next, until=number):
            self._on_lost()
        self._apply(number, payload)

    async def _replay(self, context: Any, start: int, until: int | None = None) -> bool:
        """Ask for batches from `start` on; returns whether all before `until` are heard then.

        Without `until` the first that comes is the beginning, as far as the replica remembers.
        """
        import zmq

        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVHWM, 0)
        is_first = until is None
        try:
            socket.connect(replay_endpoint(self._endpoint))
            await socket.send_multipart([b"", start.to_bytes(8, "big")])
            while await socket.poll(_REPLAY_TIMEOUT_MS):
                # (empty, topic, number, payload) and in older releases (empty, number, payload).
                *_, number, payload = await socket.recv_multipart()
                if number == _END:
                    break
                value = int.from_bytes(number, "big")
                if is_first and value > self._next:
                    self._on_lost()
                    self._next = value
                is_first = False
                if value == self._next and (until is None or value < until):
                    self._apply(value, payload)
        finally:
            socket.close(linger=0)
        return until is None or self._next == until

    def _apply(self, number: int, payload: bytes) -> None:
        self._next = number + 1
        with contextlib.suppress(RouterError):  # a batch of a form that is not known says nothing
            batch = read_batch(payload)
            self._heard_until_s = max(self._heard_until_s, batch.at_s)
            for event in batch.events:
                self._on_event(event)


def _time_of(payload: bytes) -> float:
    try:
        return read_batch(payload).at_s
    except RouterError:
        return 0.0
