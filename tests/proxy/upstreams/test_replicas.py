"""Several replicas as one upstream, with real servers on loopback; one is a child process that can be killed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import redis.asyncio

from sluice.backend.free_port import free_port
from sluice.backend.router.placements import RedisPlacements
from sluice.proxy.errors import UpstreamDisconnectedError, UpstreamReadTimeoutError, UpstreamUnreachableError
from sluice.proxy.upstreams import Answer, HttpLimits, Upstreams, UpstreamSettings
from sluice.proxy.upstreams.replicas import ReplicaUpstream
from sluice.proxy.wire import Outgoing, WireName
from tests.proxy.servers import Exchange, ScriptedUpstream, completion, serving

STANDIN = Path(__file__).parents[2] / "backend" / "vllm" / "standin.py"
PATH = "/v1/chat/completions"


def body(*contents: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


@asynccontextmanager
async def standin(*flags: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A replica that speaks as vLLM does, in a process of its own."""
    port = free_port()
    command = [sys.executable, str(STANDIN), "serve", "m", "--host", "127.0.0.1", "--port", str(port), *flags]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    if (await client.get(f"{url}/health")).status_code == 200:
                        break
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
        yield url, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def upstream(*urls: str, **options: object) -> AsyncIterator[ReplicaUpstream]:
    made = ReplicaUpstream("http://fleet", urls, HttpLimits(read_timeout_s=10.0), **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.aclose()


async def ask(made: ReplicaUpstream, data: bytes) -> bytes:
    answer = await made.send("POST", PATH, [(b"content-type", b"application/json")], data)
    try:
        assert answer.status == 200
        return await read_all(answer)
    finally:
        answer.close()


async def read_all(answer: Answer) -> bytes:
    parts = []
    while part := await answer.read():
        parts.append(part)
    return b"".join(parts)


async def test_a_conversation_stays_where_it_began_and_new_ones_are_spread() -> None:
    async with standin() as (one, _), standin() as (two, _), upstream(one, two) as made:
        for number in range(4):
            for turns in range(1, 5):
                await ask(made, body(*(f"conversation {number} turn {turn} " + "word " * 40 for turn in range(turns))))
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = [(await client.get(f"{url}/metrics")).text for url in (one, two)]
        cached = [float(text.split("prompt_tokens_cached_total{")[1].split("} ")[1].split("\n")[0]) for text in metrics]
        assert all(cached), "each has served two conversations, and their prefixes"


async def test_a_killed_replica_loses_no_request_that_had_not_begun() -> None:
    async with standin("--dies") as (one, first), standin() as (two, _), upstream(one, two) as made:
        for number in range(4):
            assert b"fine" in await ask(made, body(f"{number}"))
        assert await first.wait() == -9
        assert not made.replicas.router.is_up(one)


async def test_a_request_that_kills_replicas_does_not_get_all_of_them() -> None:
    async with standin() as (one, _), standin() as (two, _), standin() as (three, _), upstream(one, two, three) as made:
        with pytest.raises(UpstreamDisconnectedError):
            await ask(made, body("die before"))
        assert b"fine" in await ask(made, body("hello"))


async def test_where_none_listens_it_says_so() -> None:
    async with upstream(f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}") as made:
        with pytest.raises(UpstreamUnreachableError, match="cannot connect"):
            await ask(made, body("hello"))
        with pytest.raises(UpstreamUnreachableError):
            await made.ping("/health", must_be_ok=True)


async def test_many_requests_survive_the_death_of_one_replica() -> None:
    async with standin() as (one, first), standin() as (two, _), upstream(one, two) as made:
        await asyncio.gather(*(ask(made, body(f"start {number}")) for number in range(6)))
        first.kill()
        answers = await asyncio.gather(*(ask(made, body(f"start {number}", "more")) for number in range(12)))
        assert len(answers) == 12
        assert not made.replicas.router.is_up(one)
        assert made.replicas.router.is_up(two)


async def test_an_answer_that_has_begun_is_not_asked_for_twice() -> None:
    async with standin() as (one, first), standin() as (two, second), upstream(one, two) as made:
        answer = await made.send("POST", PATH, [], body("die amid", stream=True, max_tokens=3))
        assert b"data: " in await answer.read()
        with pytest.raises(UpstreamDisconnectedError):
            await read_all(answer)
        answer.close()
        assert (await ask(made, body("again"))).startswith(b"{")
        ends = [asyncio.ensure_future(process.wait()) for process in (first, second)]
        gone, left = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert (len(gone), len(left)) == (1, 1)
        for end in left:
            end.cancel()


async def test_a_replica_that_comes_back_is_used_again() -> None:
    port = free_port()
    down = f"http://127.0.0.1:{port}"
    async with standin() as (up, _), upstream(down, up) as made:
        await ask(made, body("hello"))
        router = made.replicas.router
        assert not router.is_up(down)
        scripted = ScriptedUpstream()

        async def healthy(exchange: Exchange) -> None:
            await exchange.whole(b"{}")

        scripted.answer = healthy
        async with serving(scripted, port=port):
            async with asyncio.timeout(20):
                while not router.is_up(down):  # noqa: ASYNC110 - it asks in its own time
                    await asyncio.sleep(0.05)


async def test_a_dead_engine_is_passed_over_once_and_what_fails_everywhere_is_handed_on() -> None:
    broken, well = ScriptedUpstream(), ScriptedUpstream()

    async def fail(exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.whole(b"")
        else:
            await exchange.whole(b'{"error": {"message": "EngineDeadError"}}', 500)

    async def fine(exchange: Exchange) -> None:
        await exchange.whole(json.dumps(completion()).encode())

    broken.answer, well.answer = fail, fine
    async with serving(broken) as one, serving(well) as two, upstream(one, two) as made:
        for number in range(4):
            assert b"hello" in await ask(made, body(f"{number}"))
        well.answer = fail
        answer = await made.send("POST", PATH, [], body("bad"))
        assert answer.status == 500
        answer.close()


async def test_a_stream_that_begins_with_an_error_is_asked_for_elsewhere() -> None:
    broken, well = ScriptedUpstream(), ScriptedUpstream()

    async def fail(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        await exchange.part(b'data: {"error": {"message": "EngineCore died"}}\n\n')
        await exchange.end()

    broken.answer = fail
    async with serving(broken) as one, serving(well) as two, upstream(one, two) as made:
        for number in range(3):
            assert b"[DONE]" in await ask(made, body(f"{number}", stream=True))


async def test_a_replica_that_is_at_work_too_long_is_not_given_up_for_another() -> None:
    slow, well = ScriptedUpstream(), ScriptedUpstream()
    hold = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.whole(b"")
        else:
            await hold.wait()

    slow.answer = wait
    async with serving(slow) as one, serving(well) as two:
        made = ReplicaUpstream("http://fleet", [one, two], HttpLimits(read_timeout_s=0.5))
        try:
            outcomes = await asyncio.gather(*(ask(made, body(f"{n}")) for n in range(4)), return_exceptions=True)
        finally:
            hold.set()
            await made.aclose()
    assert any(isinstance(outcome, UpstreamReadTimeoutError) for outcome in outcomes)
    assert all(isinstance(outcome, bytes | UpstreamReadTimeoutError) for outcome in outcomes)


async def test_events_say_what_a_replica_holds(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/kv"
    config = json.dumps({"endpoint": endpoint, "replay_endpoint": f"{endpoint}.replay"})
    async with standin("--kv-events-config", config) as (url, _), upstream(url, kv_events=[endpoint]) as made:
        first = body("word " * 100)
        fleet = made.replicas
        async with asyncio.timeout(20):
            while fleet.index.num_blocks(url) < 6:
                await ask(made, first)
                await asyncio.sleep(0.05)
            from sluice.backend.router import read_prompt

            longer = read_prompt(body("word " * 100, "and more"))
            assert longer is not None
            while fleet.held(longer) is None:  # learned beside, once events have come
                await ask(made, first)
                await asyncio.sleep(0.05)
        held = fleet.held(longer)
        assert held is not None
        assert 0.8 * longer.ends[1] < held[0] <= longer.ends[1]


async def test_proxies_agree_through_redis(redis_url: str) -> None:
    clients = [redis.asyncio.Redis.from_url(redis_url) for _ in range(2)]
    async with standin() as (one, _), standin() as (two, _):
        async with (
            upstream(one, two, placements=RedisPlacements(clients[0])) as here,
            upstream(one, two, placements=RedisPlacements(clients[1])) as there,
        ):
            for number in range(6):
                start, more = f"conversation {number} " + "word " * 200, "next " * 200
                await ask(here, body(start))
                await ask(there, body(start, more))
                await ask(here, body(start, more, more))
        async with httpx.AsyncClient(trust_env=False) as client:
            texts = [(await client.get(f"{url}/metrics")).text for url in (one, two)]
    for client_ in clients:
        await client_.aclose()
    cached, prompts = (
        sum(float(text.split(f"vllm:{name}{{")[1].split("} ")[1].split("\n")[0]) for text in texts)
        for name in ("prompt_tokens_cached_total", "prompt_tokens_total")
    )
    assert cached / prompts > 0.4, "each turn was sent where the one before was computed, whoever sent it"


async def test_a_redis_that_is_gone_says_nothing() -> None:
    client = redis.asyncio.Redis(host="127.0.0.1", port=free_port(), socket_connect_timeout=0.2)
    async with standin() as (url, _), upstream(url, placements=RedisPlacements(client)) as made:
        assert b"fine" in await ask(made, body("hello"))
    await client.aclose()


async def test_upstreams_take_replicas_by_their_settings() -> None:
    one, two = ScriptedUpstream(), ScriptedUpstream()
    async with serving(one) as first, serving(two) as second:
        settings = UpstreamSettings.model_validate(
            {"name": "fleet", "preset": "vllm", "replicas": [f"{first}/v1", second], "origin": "http://fleet"}
        )
        fleet = Upstreams([settings])
        try:
            target = fleet.resolve("m")
            assert target.origin == "http://fleet"
            await fleet.ping("fleet")
            answer = await fleet.send(target, Outgoing("POST", PATH, [], body("hi"), WireName.CHAT, "m"))
            assert answer.status == 200
            answer.close()
        finally:
            await fleet.aclose()
    assert [e.path for e in [*one.exchanges, *two.exchanges] if e.method == "POST"] == [PATH]


def test_events_have_to_be_given_for_each_replica() -> None:
    with pytest.raises(ValueError, match="has 2 replicas and 1 kv_events"):
        UpstreamSettings.model_validate(
            {"name": "f", "replicas": ["http://a", "http://b"], "kv_events": ["tcp://a:5557"]}
        )
