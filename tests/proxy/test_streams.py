"""Many streams at once through a proxy in a process of its own: all of them live, and memory is bounded."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.proxy.processes import served
from tests.proxy.servers import DONE, Exchange, ScriptedUpstream, chunk

NUM_STREAMS = 1000 if os.environ.get("SLUICE_TEST_FULL") else 200
MAX_BYTES_A_STREAM = 150_000
MAX_BYTES_ONCE = 32_000_000
"""What any load makes an allocator keep, once."""
BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi " * 500}]}).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


@pytest.fixture
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_files")
async def test_many_streams_live_at_once_in_bounded_memory(
    upstream: ScriptedUpstream, record_property: Callable[[str, object], None]
) -> None:
    go_on = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(chunk("one"))
        await go_on.wait()
        for _ in range(20):
            await exchange.part(chunk("two"))
        await exchange.part(DONE)
        await exchange.end()

    async def open_stream() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b'"one"')
        return reader, writer

    async def finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        rest = await reader.read(-1)
        writer.close()
        return rest.count(b'"two"') == 20 and b"[DONE]" in rest

    upstream.answer = slowly
    # The first answers wait for the tokenizer, so that its memory counts as the proxy's own and not as the streams'.
    env = {"SLUICE_TOKENS_WAIT_S": "60"}
    async with served("--upstream", upstream.url, "--mode", "safe", env=env) as (process, client):
        host, port = client.base_url.host, client.base_url.port
        proxy = psutil.Process(process.pid)
        go_on.set()
        for _ in range(3):  # what the first requests load counts for none
            reader, writer = await open_stream()
            assert await finish(reader, writer)
        go_on.clear()
        before = proxy.memory_info().rss
        streams = []
        for _ in range(0, NUM_STREAMS, 50):  # no more at a time than a listener's backlog takes
            streams += await asyncio.gather(*(open_stream() for _ in range(50)))
        during = proxy.memory_info().rss
        go_on.set()
        whole = await asyncio.gather(*(finish(*stream) for stream in streams))
    each_kb = (during - before) / NUM_STREAMS / 1000
    record_property("counts", f"{NUM_STREAMS} streams at once: {each_kb:.0f} kB each, {sum(whole)} whole")
    assert sum(whole) == NUM_STREAMS
    assert during - before < NUM_STREAMS * MAX_BYTES_A_STREAM + MAX_BYTES_ONCE
