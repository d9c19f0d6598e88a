"""Clients that read slowly or vanish, and a day of work, around a proxy: nobody else waits, and memory stays flat.

Each test says in the run's summary what it counted; `SLUICE_TEST_FULL` makes the loads large and the waits long.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable

import httpx
import psutil

from tests.proxy.load import CHAT, Agent, round_of, told
from tests.proxy.processes import UpstreamProcess, served
from tests.proxy.servers import DONE, Exchange, ScriptedUpstream, chunk

IS_FULL = bool(os.environ.get("SLUICE_TEST_FULL"))
LONGEST_MS = 20_000
"""No request may take longer, whatever has failed; on a quiet machine none takes two seconds."""
LOADED = {"SLUICE_TOKENS_WAIT_S": "60"}
"""The first answers wait for the tokenizer, so that its memory is there before any is measured."""
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MAX_BYTES_A_STREAM = 2 << 20
"""What an answer that nobody takes may hold of this process's memory."""
SMALL = {"SLUICE_STATE_MAX_BYTES": str(4 << 20), "SLUICE_CONVERSATION_MAX_BYTES": str(24 << 20)}
"""What is bounded by bytes is full before any memory is measured."""
MAX_BYTES_A_TURN = 2_000
"""What a turn may leave in memory until as many are kept as may be: digests and token counts of its messages, its row
in the meter. All of these are bounded by number (400,000, 100,000 and 100,000); the rest has to be flat."""
Note = Callable[[str, object], None]


def request_of(body: object, *, num_bytes: int | None = None) -> bytes:
    """A request's bytes; `num_bytes` cuts its body."""
    data = json.dumps(body).encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (CHAT.encode(), len(data)) + data[:num_bytes]


def connect(client: httpx.AsyncClient, *, receive_bytes: int | None = None) -> socket.socket:
    """A bare connection, with as small a buffer for what comes as is asked for."""
    bare = socket.socket()
    if receive_bytes is not None:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    bare.settimeout(30)
    bare.connect((client.base_url.host, client.base_url.port))
    return bare


async def test_a_client_that_reads_a_byte_a_second_holds_up_nobody_and_fills_no_memory(record_property: Note) -> None:
    num_parts = 4_000 if IS_FULL else 1_500
    seconds, num_others = 60 if IS_FULL else 3, 5
    counts: Counter[str] = Counter()
    # That nothing is read of the upstream meanwhile is the client's doing, and no silence of the upstream.
    env = {**LOADED, "SLUICE_READ_TIMEOUT_S": "2", "SLUICE_CONVERSATION_MAX_BYTES": "0"}
    async with UpstreamProcess() as upstream, served("--upstream", upstream.url, env=env) as (process, client):

        async def others(second: int) -> None:
            """A few new conversations, none of which is held: the memory that is measured is the slow clients'."""
            await round_of([Agent(f"agent{second}_{number}", 1) for number in range(num_others)], client, counts)

        await others(0)
        proxy = psutil.Process(process.pid)
        before = proxy.memory_info().rss
        big = {**BODY, "stream": True, "num_parts": num_parts, "part_bytes": 32_768}
        slow = [connect(client, receive_bytes=4096) for _ in range(8)]
        for bare in slow:
            bare.sendall(request_of(big))
        for second in range(seconds):
            for bare in slow:
                counts["bytes read slowly"] += len(await asyncio.to_thread(bare.recv, 1))
            started_s = time.monotonic()
            await others(1 + second)
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - started_s)))
        grown = proxy.memory_info().rss - before
        # They make up their minds and read on: all of it comes.
        received = await asyncio.to_thread(read_to_the_end, slow[0])
        for bare in slow:
            bare.close()
        await others(1 + seconds)
    offered = len(slow) * num_parts * 32_768
    record_property("counts", f"{told(counts)}; {offered >> 20} MB offered, proxy grew by {grown >> 20} MB")
    assert counts["200"] == num_others * (2 + seconds)
    assert counts["bytes read slowly"] == len(slow) * seconds
    assert counts["slowest_ms"] < LONGEST_MS
    assert received.count(b'"xxx') == num_parts
    assert received.endswith(DONE + b"\r\n0\r\n\r\n")
    assert grown < len(slow) * MAX_BYTES_A_STREAM


def read_to_the_end(bare: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"0\r\n\r\n"):
        data = bare.recv(1 << 20)
        assert data, "the connection was cut"
        received += data
    return bytes(received)


async def test_clients_that_vanish_leave_nothing_behind(upstream: ScriptedUpstream, record_property: Note) -> None:
    async def slowly(exchange: Exchange) -> None:
        if exchange.json.get("hold"):
            await asyncio.Event().wait()
        await exchange.start("text/event-stream")
        while True:
            await exchange.part(chunk("more"))
            await asyncio.sleep(0.01)

    upstream.answer = slowly
    num_clients = 100 if IS_FULL else 20
    streamed = {**BODY, "stream": True}
    async with served("--upstream", upstream.url) as (process, client):
        proxy = psutil.Process(process.pid)
        idle = proxy.num_fds()
        vanished = 0
        for _ in range(5 if IS_FULL else 2):
            for body, cut, reads in (
                (streamed, 20, False),  # while it was sending its request
                ({**BODY, "hold": True}, None, False),  # while the upstream was thinking
                (streamed, None, True),  # while it was read to
            ):
                gone = [connect(client) for _ in range(num_clients)]
                for bare in gone:
                    bare.sendall(request_of(body, num_bytes=cut))
                if reads:
                    for bare in gone:
                        assert await asyncio.to_thread(bare.recv, 100)
                elif cut is None:
                    await until(lambda: sum(not e.hung_up.is_set() for e in upstream.exchanges) >= num_clients)
                for bare in gone:
                    # No farewell: a connection that is reset, as that of a process that was killed.
                    bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    bare.close()
                vanished += num_clients
                await until(lambda: all(exchange.hung_up.is_set() for exchange in upstream.exchanges))
        await until(lambda: proxy.num_fds() <= idle + 2)
        left = proxy.num_fds() - idle
        upstream.answer = ScriptedUpstream().answer
        assert (await client.post(CHAT, json=BODY)).status_code == 200
        hung_up = sum(exchange.hung_up.is_set() for exchange in upstream.exchanges)
    record_property(
        "counts", f"{vanished} vanished, {hung_up} upstream calls hung up on, {left} more file descriptors than before"
    )
    assert hung_up == vanished * 2 / 3


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.05)


async def test_a_day_in_minutes_leaves_memory_flat(record_property: Note) -> None:
    """Conversations come and go; a day of a team of ten, 15,000 turns, or in the short run the first hour of it."""
    num_agents, num_turns, num_generations = (50, 30, 10) if IS_FULL else (20, 10, 5)
    counts: Counter[str] = Counter()
    sizes: list[int] = []
    async with (
        UpstreamProcess() as upstream,
        served("--upstream", upstream.url, env={**LOADED, **SMALL}) as (process, client),
    ):
        proxy = psutil.Process(process.pid)
        for generation in range(num_generations):
            agents = [Agent(f"agent{generation}_{number}", num_turns) for number in range(num_agents)]
            for _ in range(num_turns):
                await round_of(agents, client, counts)
            sizes.append(proxy.memory_info().rss)
    record_property("counts", f"{told(counts)}; MB after each part: {' '.join(str(size >> 20) for size in sizes)}")
    assert counts["200"] == num_agents * num_turns * num_generations
    assert counts["slips"] == 0
    assert counts["shortened"] > 0
    middle = num_generations // 2
    num_turns_since = num_agents * num_turns * (num_generations - 1 - middle)
    assert sizes[-1] - sizes[middle] < 0.05 * sizes[middle] + num_turns_since * MAX_BYTES_A_TURN
