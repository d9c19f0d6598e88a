"""Retries, fallbacks and breakers, with real servers on loopback."""

from __future__ import annotations

import asyncio
import json

import pytest

from sluice.backend.free_port import free_port
from sluice.proxy.errors import (
    UpstreamDisconnectedError,
    UpstreamPoolTimeoutError,
    UpstreamReadTimeoutError,
    UpstreamUnreachableError,
)
from tests.proxy.servers import Exchange, ScriptedUpstream, completion
from tests.proxy.upstreams.fleet import BODY, CLIENTS, Fleet, ask, read, refusing, settings


@pytest.mark.parametrize("status", [429, 502, 503, 529])
async def test_a_refusal_is_followed_by_a_retry_that_says_so(fleet: Fleet, status: int) -> None:
    fleet.first.answer = refusing(status, 1)
    answer = await ask(fleet.make())
    assert (answer.status, json.loads(await read(answer))) == (200, completion())
    assert answer.sluice_headers == [(b"x-sluice-upstream", b"a"), (b"x-sluice-retries", b"1")]
    assert [exchange.body for exchange in fleet.first.exchanges] == [BODY, BODY]
    assert fleet.count("sluice_upstream_retries_total", upstream="a", reason=str(status)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 500, 504])
async def test_what_may_have_been_worked_on_or_is_the_clients_fault_is_passed_on(fleet: Fleet, status: int) -> None:
    fleet.first.answer = refusing(status, 1, body=b'{"error": {"message": "so"}}')
    answer = await ask(fleet.make())
    assert (answer.status, await read(answer)) == (status, b'{"error": {"message": "so"}}')
    assert answer.sluice_headers == [(b"x-sluice-upstream", b"a")]
    assert len(fleet.first.exchanges) == 1
    assert not fleet.second.exchanges


async def test_three_refusals_are_followed_by_the_fallback_with_the_same_bytes(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    answer = await ask(fleet.make())
    assert answer.status == 200
    await read(answer)
    assert (answer.upstream, answer.num_retries) == ("b", 3)
    assert [len(fleet.first.exchanges), len(fleet.second.exchanges)] == [3, 1]
    assert fleet.second.last.body == BODY
    assert fleet.count("sluice_upstream_fallbacks_total", upstream="a", fallback="b") == 1


async def test_where_nobody_serves_the_first_refusal_is_passed_on_whole(fleet: Fleet) -> None:
    fleet.first.answer = refusing(429, 99, (b"retry-after", b"60"), body=b'{"error": {"message": "first"}}')
    fleet.second.answer = refusing(503, 99, body=b"second")
    answer = await ask(fleet.make())
    assert (answer.status, await read(answer)) == (429, b'{"error": {"message": "first"}}')
    assert (b"retry-after", b"60") in answer.headers
    assert answer.upstream == "a"
    assert len(fleet.first.exchanges) == 1, "a minute is more than is worth waiting"
    assert len(fleet.second.exchanges) == 3


async def test_a_refusal_beats_no_answer(fleet: Fleet) -> None:
    fleet.second.answer = refusing(503, 99, body=b"second")
    dead = settings("a", f"http://127.0.0.1:{free_port()}", fallback=("b",))
    answer = await ask(fleet.make(dead, settings("b", fleet.second.url, models=(), credential="none")))
    assert (answer.status, await read(answer), answer.upstream) == (503, b"second", "b")


async def test_a_quota_that_is_used_up_is_not_asked_again(fleet: Fleet) -> None:
    fleet.first.answer = refusing(429, 99, body=b'{"error": {"code": "insufficient_quota"}}')
    answer = await ask(fleet.make())
    assert (answer.upstream, answer.num_retries, len(fleet.first.exchanges)) == ("b", 1, 1)
    await read(answer)


async def test_an_upstream_that_refuses_connections_is_tried_again_and_then_named(fleet: Fleet) -> None:
    port = free_port()
    upstreams = fleet.make(settings("a", f"http://127.0.0.1:{port}"))
    with pytest.raises(UpstreamUnreachableError, match=str(port)):
        await ask(upstreams)
    assert fleet.count("sluice_upstream_retries_total", upstream="a", reason="upstream_unreachable") == 2


async def test_an_upstream_that_hangs_up_in_mid_work_is_not_asked_again(fleet: Fleet) -> None:
    asked = 0

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstreams = fleet.make(settings("a", url, fallback=("b",)), settings("b", fleet.second.url, credential="none"))
    with pytest.raises(UpstreamDisconnectedError):
        await ask(upstreams)
    server.close()
    assert asked == 1
    assert not fleet.second.exchanges


@pytest.mark.parametrize("max_retries", [0, 2])
async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_request(fleet: Fleet, max_retries: int) -> None:
    asked = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readexactly(len(BODY) + len(await reader.readuntil(b"\r\n\r\n")) * 0)
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # the next request, to which it hangs up
        writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstreams = fleet.make(settings("a", url), max_retries=max_retries)
    for num_retries in (0, 1):
        answer = await ask(upstreams)
        assert (await read(answer), answer.num_retries) == (b"{}", num_retries)
    server.close()
    assert asked == 2


async def test_an_upstream_that_is_silent_is_not_asked_again(fleet: Fleet) -> None:
    async def silent(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    fleet.first.answer = silent
    with pytest.raises(UpstreamReadTimeoutError):
        await ask(fleet.make())
    assert (len(fleet.first.exchanges), len(fleet.second.exchanges)) == (1, 0)


async def test_a_breaker_opens_passes_over_probes_and_closes(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    upstreams = fleet.make(breaker_failures=3, breaker_retry_s=0.2)
    await read(await ask(upstreams))
    assert len(fleet.first.exchanges) == 3
    assert fleet.count("sluice_upstream_open", upstream="a") == 1
    answer = await ask(upstreams)
    await read(answer)
    assert (answer.upstream, answer.num_retries, len(fleet.first.exchanges)) == ("b", 0, 3)
    fleet.first.answer = ScriptedUpstream().answer
    async with asyncio.timeout(10):
        while answer.upstream != "a":  # until the breaker lets one through
            answer = await ask(upstreams)
            await read(answer)
    assert fleet.count("sluice_upstream_open", upstream="a") == 0


async def test_an_upstream_that_is_passed_over_is_tried_where_there_is_no_other(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 3)
    upstreams = fleet.make(settings("a", fleet.first.url), breaker_failures=3, breaker_retry_s=60.0)
    assert await read(await ask(upstreams)) == b'{"error": {}}'
    assert fleet.count("sluice_upstream_open", upstream="a") == 1
    answer = await ask(upstreams)
    assert answer.status == 200
    await read(answer)
    assert fleet.count("sluice_upstream_open", upstream="a") == 0


async def test_too_many_requests_of_one_client_do_not_open_it(fleet: Fleet) -> None:
    fleet.first.answer = refusing(429, 99, (b"x-should-retry", b"false"))
    upstreams = fleet.make(settings("a", fleet.first.url), breaker_failures=2)
    for _ in range(4):
        await read(await ask(upstreams))
    assert fleet.count("sluice_upstream_open", upstream="a") == 0


async def test_a_want_of_connections_does_not_close_it(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    alone = settings("a", fleet.first.url, max_connections=1, pool_timeout_s=0.05)
    upstreams = fleet.make(alone, breaker_failures=1, max_retries=0)
    unread = await ask(upstreams)
    assert fleet.count("sluice_upstream_open", upstream="a") == 1
    with pytest.raises(UpstreamPoolTimeoutError):
        await ask(upstreams)
    assert fleet.count("sluice_upstream_open", upstream="a") == 1
    unread.close()


async def test_a_hang_up_while_waiting_to_retry_ends_it(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99, (b"retry-after", b"5"))
    task = asyncio.create_task(ask(fleet.make(settings("a", fleet.first.url))))
    await fleet.first.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(fleet.first.exchanges) == 1


async def test_one_list_is_made_of_those_who_answer(fleet: Fleet) -> None:
    upstreams = fleet.make(
        settings("a", fleet.first.url, models=("gpt-*",)),
        settings("dead", f"http://127.0.0.1:{free_port()}", models=("d",), credential="none"),
        settings("b", fleet.second.url, models=("local",), credential="none"),
    )
    listed = json.loads(await read(await upstreams.models("/v1/models", CLIENTS)))
    assert [entry["id"] for entry in listed["data"]] == ["gpt-4o", "local"]
    assert fleet.first.last.header("authorization") == b"Bearer clients-own"
    assert fleet.second.last.header("authorization") is None


async def test_health_is_told_apart(fleet: Fleet) -> None:
    upstreams = fleet.make(settings("a", fleet.first.url), settings("dead", f"http://127.0.0.1:{free_port()}"))
    await upstreams.ping("a")
    with pytest.raises(UpstreamUnreachableError):
        await upstreams.ping("dead")
