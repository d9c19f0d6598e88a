"""Faults around a proxy in processes of its own: nothing hangs, nothing is lost, what could be served is served.

Each test says in the run's summary what it counted; `SLUICE_TEST_FULL` makes the loads large and the waits long.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.proxy.load import CHAT, Agent, round_of, told
from tests.proxy.processes import UpstreamProcess, one_that_is_asked, served, wait_until_replaced, workers_of
from tests.proxy.servers import DONE
from tests.redis_server import RedisServer

IS_FULL = bool(os.environ.get("SLUICE_TEST_FULL"))
NUM_AGENTS = 100 if IS_FULL else 24
LONGEST_MS = 20_000
"""No request may take longer, whatever has failed; on a quiet machine none takes two seconds."""
LOADED = {"SLUICE_TOKENS_WAIT_S": "60"}
"""The first answers wait for the tokenizer, so that its memory is there before any is measured."""
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
Note = Callable[[str, object], None]


# --- the upstream ----------------------------------------------------------------------------------------------------


async def stream(client: httpx.AsyncClient, begun: list[int] | None = None, **asked: object) -> tuple[int, bytes]:
    """Status and body; once the first part is there, its length is put into `begun`."""
    body = b""
    async with client.stream("POST", CHAT, json={**BODY, "stream": True, **asked}) as answer:
        async for part in answer.aiter_bytes():
            if begun is not None and not body:
                begun.append(len(part))
            body += part
    return answer.status_code, body


async def test_an_upstream_that_is_killed_before_during_and_after_a_stream(record_property: Note) -> None:
    counts: Counter[str] = Counter()
    num_kills = 5 if IS_FULL else 2
    async with UpstreamProcess() as upstream, served("--upstream", upstream.url) as (_, client):
        for _ in range(num_kills):
            upstream.kill()
            refused = await asyncio.gather(*(client.post(CHAT, json=BODY) for _ in range(NUM_AGENTS)))
            counts["refused while it was dead"] += len(refused)
            assert {(a.status_code, a.json()["error"]["code"]) for a in refused} == {(502, "upstream_unreachable")}
            await upstream.start()
            whole = await asyncio.gather(*(stream(client, num_parts=20) for _ in range(NUM_AGENTS)))
            assert all(status == 200 and body.endswith(DONE) for status, body in whole)
            begun: list[int] = []
            cut = [asyncio.create_task(stream(client, begun, num_parts=600, pause_s=0.1)) for _ in range(NUM_AGENTS)]
            async with asyncio.timeout(LONGEST_MS / 1000):
                while len(begun) < NUM_AGENTS // 2:  # noqa: ASYNC110 - each of them is another's doing
                    await asyncio.sleep(0.01)
            upstream.kill()
            async with asyncio.timeout(LONGEST_MS / 1000):
                ended = await asyncio.gather(*cut)
            for status, body in ended:
                if status == 200:  # it had begun: what had come is there, then one error
                    counts["cut with an error event"] += 1
                    events = body.decode().strip().split("\n\n")
                    assert len(events) > 1
                    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "upstream_disconnected"
                    assert all(event.startswith("data: {") and "error" not in event for event in events[:-1])
                else:
                    counts["cut before the first byte"] += 1
                    assert status == 502
            await upstream.start()
            # Connections that were kept from before it was killed are told from faults, and cost nothing.
            again = await asyncio.gather(*(stream(client, num_parts=20) for _ in range(NUM_AGENTS)))
            assert all(status == 200 and body.endswith(DONE) for status, body in again)
            counts["whole"] += len(whole) + len(again)
            upstream.kill()  # after the streams: nobody is told, and the next ones find it again
            await upstream.start()
            assert (await stream(client, num_parts=1))[0] == 200
    record_property("counts", told(counts))
    assert counts["cut with an error event"] >= num_kills * (NUM_AGENTS // 2)


async def test_what_another_upstream_can_serve_is_served(tmp_path: Path, record_property: Note) -> None:
    counts: Counter[str] = Counter()
    async with UpstreamProcess() as one, UpstreamProcess() as other:
        settings = tmp_path / "sluice.toml"
        settings.write_text(
            f'[[upstreams]]\nname = "one"\norigin = "{one.url}"\nfallback = ["other"]\n'
            f'[[upstreams]]\nname = "other"\norigin = "{other.url}"\nmodels = []\n'
        )
        async with served("--config", str(settings), "--mode", "safe") as (_, client):
            agents = [Agent(f"agent{number}", 16) for number in range(NUM_AGENTS)]
            for turn in range(16):
                if turn % 4 == 2:
                    one.kill()
                if turn % 4 == 0 and turn:
                    await one.start()
                await round_of(agents, client, counts)
    record_property("counts", told(counts))
    assert counts["200"] == NUM_AGENTS * 16
    assert counts["slips"] == 0
    assert counts["shortened"] > 0
    assert counts["slowest_ms"] < LONGEST_MS


# --- Redis ------------------------------------------------------------------------------------------------------------


class Relay:
    """Stands before Redis and lets its answers wait."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.wait_s = 0.0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_answer: bool) -> None:
            try:
                while data := await source.read(65536):
                    if is_answer:
                        await asyncio.sleep(self.wait_s)
                    target.write(data)
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        await asyncio.gather(pass_on(theirs, writer, is_answer=True), pass_on(reader, ours, is_answer=False))


@pytest.mark.redis
async def test_redis_killed_restarted_hung_slow_full_and_read_only_costs_no_request_and_no_prefix(
    redis_server: RedisServer, record_property: Note
) -> None:
    async with UpstreamProcess() as upstream, Relay(redis_server.port).running() as relay:
        options = ("--upstream", upstream.url, "--redis", relay.url, "--mode", "safe")
        # On a machine that is busy with other tests a Redis that writes each record to the disk takes its time.
        async with served(*options, env={"SLUICE_REDIS_TIMEOUT_S": "1"}, ends=True) as (_, client):
            agents = [Agent(f"agent{number}", 100) for number in range(NUM_AGENTS)]

            async def rounds(what: str, *, known: bool) -> None:
                """Three turns of all; `known` says that Redis can be asked, so that what is new gets decided."""
                seen: Counter[str] = Counter()
                for _ in range(3):
                    await round_of(agents, client, seen)
                record_property("counts", f"{what}: {told(seen)}")
                assert (seen["200"], seen["slips"]) == (3 * NUM_AGENTS, 0)
                assert seen["slowest_ms"] < LONGEST_MS
                # A machine that does much else makes Redis, which writes to the disk, wait longer than requests do.
                assert not (known and seen["bypass state"] > seen["200"] // 4)
                assert not (known and not seen["shortened"])

            async def recovered() -> None:
                """Redis is asked again some seconds after it failed. A busy machine may stop it at each change."""
                await eventually_known(client)

            await rounds("well", known=True)
            redis_server.kill()
            await rounds("killed", known=False)
            redis_server.start()
            await recovered()
            await rounds("started again", known=True)
            redis_server.hang()
            await rounds("hung", known=False)
            redis_server.resume()
            await recovered()
            relay.wait_s = 0.05
            await rounds("slow, within the time limit", known=True)
            relay.wait_s = 4.0
            await rounds("slow, beyond it", known=False)
            relay.wait_s = 0.0
            await recovered()
            redis_server.fill()
            await recovered()
            await rounds("full", known=True)
            redis_server.empty()
            redis_server.demote()
            await recovered()
            await rounds("read-only", known=True)
            redis_server.command("REPLICAOF", "NO", "ONE")
            redis_server.lose_disk()
            await recovered()
            await rounds("without a disk", known=True)
            redis_server.command("CONFIG", "SET", "save", "")
            await recovered()
            await rounds("well again", known=True)
            ready = (await client.get("/readyz")).json()
        num_records = int(redis_server.command("DBSIZE").strip()[1:])
    record_property("counts", f"records in Redis at the end: {num_records}")
    assert ready["store"] == "ok"
    # What could not be written was written later, at the latest when the proxy ended: a record and a place for each of
    # a turn's two messages.
    assert num_records >= 4 * NUM_AGENTS * 30


async def eventually_known(client: httpx.AsyncClient) -> None:
    """Wait until requests are decided again."""
    async with asyncio.timeout(30):
        for number in range(1_000):
            probe = {"model": "m", "messages": [{"role": "user", "content": f"{time.time()} {number}"}]}
            if "x-sluice-bypass" not in (await client.post(CHAT, json=probe)).headers:
                return
            await asyncio.sleep(0.1)


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.redis
async def test_a_worker_that_is_killed_costs_what_it_was_answering_and_no_more(
    redis_url: str, record_property: Note
) -> None:
    counts: Counter[str] = Counter()
    num_kills = 5 if IS_FULL else 2
    async with UpstreamProcess() as upstream:
        options = ("--upstream", upstream.url, "--redis", redis_url, "--workers", "2", "--mode", "safe")
        # A Redis that a loaded machine makes wait is another fault.
        async with served(*options, env={"SLUICE_REDIS_TIMEOUT_S": "10", "SLUICE_COMPRESS_TIMEOUT_S": "20"}) as (
            process,
            client,
        ):
            agents = [Agent(f"agent{number}", 2 + 3 * num_kills) for number in range(NUM_AGENTS)]
            await round_of(agents, client, counts)
            for _ in range(num_kills):
                workers = workers_of(process)
                working = asyncio.create_task(round_of(agents, client, counts, num_tries=20, pause_s=0.5))
                killed = await asyncio.to_thread(one_that_is_asked, workers, client.base_url.port or 0)
                psutil.Process(killed).kill()
                await working
                await round_of(agents, client, counts, num_tries=20)
                await asyncio.to_thread(wait_until_replaced, process, killed)
                await round_of(agents, client, counts, num_tries=20)
            await round_of(agents, client, counts, num_tries=20)
    record_property("counts", told(counts))
    assert counts["200"] == NUM_AGENTS * (2 + 3 * num_kills)
    assert counts["ReadError"] + counts["RemoteProtocolError"] >= num_kills, "they were answering when they were killed"
    assert counts["given up"] == 0
    assert counts["slips"] == 0
    assert counts["shortened"] > 0
    assert counts["slowest_ms"] < LONGEST_MS
