"""The tool's calls are answered out of the client's sight, through a real proxy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sluice.proxy.search_tool.turn import MAX_CALLS, MAX_ROUNDS
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import WIRES
from tests.proxy.search_tool.answers import (
    TOOL,
    events,
    given_back,
    parse_events,
    pieces_of,
    read,
    request,
    results,
    search,
    seen,
)
from tests.proxy.search_tool.rounds import HI, ask, forwarded, found_in, script, searching, streams, tools_of, wires
from tests.proxy.servers import Exchange, ScriptedUpstream


@wires
@streams
async def test_a_search_is_answered_out_of_the_clients_sight(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    rounds = [
        [("think", "hm"), ("text", "Let me look."), search("call_0", "retry backoff delay")],
        [("think", "so"), ("text", "It doubles.")],
    ]
    script(upstream, wire, rounds)
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=stream)
    first, second = upstream.exchanges
    assert tools_of(first) == tools_of(second) == ["Read", TOOL]
    assert forwarded(second)[: len(HI)] == forwarded(first)
    assert "src/retry.py:" in found_in(forwarded(second), "call_0")
    said = [piece for piece in pieces_of(wire, body) if piece[0] == "text"]
    assert "".join(piece[1] for piece in said).replace("\n\n", "") == "Let me look.It doubles."
    assert TOOL not in json.dumps(body)
    usage = body["usage"]
    assert (usage.get("prompt_tokens") or usage["input_tokens"]) == 100 + 101


@wires
@streams
async def test_beside_a_clients_call_ours_is_answered_with_the_next_turn(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    script(upstream, wire, [[("text", "Both."), search("call_0"), read("call_1")], [("text", "Good.")]])
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=stream)
        assert len(upstream.exchanges) == 1
        assert [piece[1] for piece in pieces_of(wire, body) if piece[0] == "call"] == ["call_1"]
        after = [*HI, *given_back(wire, body), *results(wire, [read("call_1")])]
        await ask(client, wire, after, stream=stream)
    sent = forwarded(upstream.last)
    assert "src/" in found_in(sent, "call_0")
    assert found_in(sent, "call_1") == "a result"
    assert TOOL in json.dumps(sent)


@wires
@streams
async def test_a_model_that_only_searches_is_stopped(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    script(upstream, wire, [[("text", f"{n}."), search(f"call_{n}")] for n in range(MAX_ROUNDS + 1)])
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=stream)
    assert len(upstream.exchanges) == MAX_ROUNDS + 1
    assert not [piece for piece in pieces_of(wire, body) if piece[0] == "call"]
    last = f"call_{MAX_ROUNDS - 1}"
    assert "No more searches" in found_in(forwarded(upstream.last), last)
    if wire is WireName.MESSAGES:
        assert body["stop_reason"] == "end_turn"
    if wire is WireName.CHAT:
        assert body["choices"][0]["finish_reason"] == "stop"


@wires
@streams
@pytest.mark.parametrize(
    "arguments", ["{}", '{"query": 3}', "[", '{"query": "x", "budget_tokens": 1}', '{"query": ""}']
)
async def test_a_search_that_fails_says_so_to_the_model(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool, arguments: str
) -> None:
    if wire is WireName.MESSAGES and arguments == "[":
        arguments = "[]"  # its input is JSON on this wire
    script(upstream, wire, [[("call", "call_0", TOOL, arguments)], [("text", "Well.")]])
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=stream)
    assert found_in(forwarded(upstream.last), "call_0").startswith("search failed: ")
    assert ("text", "Well.") in pieces_of(wire, body)


@wires
@streams
async def test_where_the_upstream_refuses_a_search_the_answer_comes_without(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    script(upstream, wire, [[("text", "Let me look."), search("call_0")], 400, [("text", "Next.")]])
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=stream)
        assert pieces_of(wire, body) == [("text", "Let me look.")]
        messages = [*HI, *given_back(wire, body), {"role": "user", "content": "go on"}]
        await ask(client, wire, messages, stream=stream)
    assert forwarded(upstream.last) == messages, "nothing was kept of it"


@wires
async def test_where_the_upstream_is_overloaded_the_client_is_told(
    upstream: ScriptedUpstream, root: Path, wire: WireName
) -> None:
    script(upstream, wire, [[search("call_0")], 503, [search("call_0")], 503])
    async with searching(upstream, root, max_retries=0) as client:
        answer = await client.post(WIRES[wire].path, json=request(wire, HI, stream=False))
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "no"
        streamed = await client.post(WIRES[wire].path, json=request(wire, HI, stream=True))
    assert "503" in streamed.text
    assert "error" in parse_events(streamed.content)[-1].get("type", "error")


@wires
@streams
async def test_searches_at_once_are_bounded(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    calls = [search(f"call_{n}") for n in range(MAX_CALLS + 2)]
    script(upstream, wire, [calls, [("text", "Well.")]])
    async with searching(upstream, root) as client:
        await ask(client, wire, HI, stream=stream)
    found = [found_in(forwarded(upstream.last), call[1]) for call in calls]
    assert [text.startswith("search failed") for text in found] == [False] * MAX_CALLS + [True] * 2


@wires
async def test_a_stream_that_ends_with_done_goes_on_before_it(
    upstream: ScriptedUpstream, root: Path, wire: WireName
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        pieces = [("text", "Found.")] if len(upstream.exchanges) > 1 else [search("call_0")]
        data = events(wire, pieces, len(upstream.exchanges))
        await exchange.part(data if wire is WireName.CHAT else data + b"data: [DONE]\n\n")
        await exchange.end()

    upstream.answer = answer
    async with searching(upstream, root) as client:
        streamed = await client.post(WIRES[wire].path, json=request(wire, HI, stream=True))
    assert streamed.content.count(b"[DONE]") == 1
    assert streamed.content.endswith(b"data: [DONE]\n\n")
    assert pieces_of(wire, seen(wire, parse_events(streamed.content))) == [("text", "Found.")]


@wires
async def test_text_goes_on_while_the_upstream_still_speaks(
    upstream: ScriptedUpstream, root: Path, wire: WireName
) -> None:
    data = events(wire, [("text", "early words"), search("call_0")])
    more = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        if len(upstream.exchanges) > 1:
            await exchange.part(events(wire, [("text", "late words")], 1))
        else:
            half = data.index(TOOL.encode())
            await exchange.part(data[:half])
            await more.wait()
            await exchange.part(data[half:])
        await exchange.end()

    upstream.answer = answer
    got = b""
    asked = request(wire, HI, stream=True)
    async with (
        searching(upstream, root) as client,
        client.stream("POST", WIRES[wire].path, json=asked) as streamed,
    ):
        async for part in streamed.aiter_raw():
            got += part
            if b"words" in got:
                more.set()
    assert b"late" in got
    assert seen(wire, parse_events(got))


@wires
async def test_a_client_that_hangs_up_ends_the_round_under_way(
    upstream: ScriptedUpstream, root: Path, wire: WireName
) -> None:
    asked_on = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        if len(upstream.exchanges) > 1:
            asked_on.set()
            await asyncio.sleep(60)
        await exchange.part(events(wire, [("text", "words"), search("call_0")]))
        await exchange.end()

    upstream.answer = answer
    async with searching(upstream, root) as client:
        async with client.stream("POST", WIRES[wire].path, json=request(wire, HI, stream=True)) as streamed:
            parts = streamed.aiter_raw()  # held on to: it hangs up when it is let go
            await anext(parts)
            await asyncio.wait_for(asked_on.wait(), 10)
        await asyncio.wait_for(upstream.last.hung_up.wait(), 10)


async def test_rounds_are_metered_together(upstream: ScriptedUpstream, root: Path) -> None:
    script(upstream, WireName.MESSAGES, [[search("call_0")], [("text", "hi")]])
    async with searching(upstream, root) as client:
        await ask(client, WireName.MESSAGES, HI, stream=True)
        totals = (await client.get("/v1/stats")).json()["totals"]
    assert (totals["num_turns"], totals["usage"]["input_tokens"], totals["usage"]["cache_read"]) == (1, 201, 81)


@wires
async def test_what_only_keeps_the_connection_alive_goes_on_and_changes_nothing(
    upstream: ScriptedUpstream, root: Path, wire: WireName
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start("text/event-stream")
        pieces = [("text", "Found.")] if len(upstream.exchanges) > 1 else [search("call_0")]
        await exchange.part(b": PROCESSING\n\ndata:\n\n" + events(wire, pieces, len(upstream.exchanges)))
        await exchange.end()

    upstream.answer = answer
    async with searching(upstream, root) as client:
        streamed = await client.post(WIRES[wire].path, json=request(wire, HI, stream=True))
    assert streamed.content.count(b": PROCESSING\n\n") == 2
    assert TOOL.encode() not in streamed.content
    said = streamed.content.replace(b"data: \n\n", b"")
    assert pieces_of(wire, seen(wire, parse_events(said))) == [("text", "Found.")]
