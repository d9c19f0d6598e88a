"""The tool's calls are answered out of the client's sight, through a real proxy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sluice.proxy.access.keys import make_key
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
    whole,
)
from tests.proxy.search_tool.rounds import HI, ask, forwarded, found_in, script, searching, streams, tools_of, wires
from tests.proxy.servers import Exchange, ScriptedUpstream
from tests.proxy.test_too_long import REFUSAL, reads


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
    assert (usage.get("prompt_tokens") or usage["input_tokens"]) == 101, "what the model had before it at last"
    assert (usage.get("completion_tokens") or usage["output_tokens"]) == 7 + 8


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
async def test_a_search_that_fails_says_so_to_the_model(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    no_json = "[]" if wire is WireName.MESSAGES else "["  # its input is JSON on this wire
    async with searching(upstream, root) as client:
        for arguments in ("{}", '{"query": 3}', no_json, '{"query": "x", "budget_tokens": 1}', '{"query": ""}'):
            script(upstream, wire, [[("call", "call_0", TOOL, arguments)], [("text", "Well.")]])
            body = await ask(client, wire, HI, stream=stream)
            assert found_in(forwarded(upstream.last), "call_0").startswith("search failed: "), arguments
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
    last = parse_events(streamed.content)[-1]
    assert last.get("type", "error") == ("response.failed" if wire is WireName.RESPONSES else "error")
    error = (last.get("response") or last)["error"]
    assert error["message"] == "upstream answered 503 to the request that carries search results: no"


@wires
async def test_a_refusal_is_the_answer_where_the_client_was_shown_nothing_that_goes_on(
    upstream: ScriptedUpstream, root: Path, wire: WireName
) -> None:
    """An empty answer would read as the end of the agent's work; told that it is too long, it compacts."""
    script(upstream, wire, [[("think", "hm"), search("call_0")], 400] * 2, error="prompt is too long: 9 tokens > 8")
    async with searching(upstream, root) as client:
        answer = await client.post(WIRES[wire].path, json=request(wire, HI, stream=False))
        streamed = await client.post(WIRES[wire].path, json=request(wire, HI, stream=True))
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("prompt is too long")
    last = parse_events(streamed.content)[-1]
    error = (last.get("response") or last)["error"]
    assert "prompt is too long" in error["message"]
    if wire is not WireName.MESSAGES:
        assert error["code"] == "context_length_exceeded"


@wires
async def test_a_model_that_says_nothing_and_only_searches_has_not_answered(
    upstream: ScriptedUpstream, root: Path, wire: WireName
) -> None:
    script(upstream, wire, [[search(f"call_{n}")] for n in range(MAX_ROUNDS + 1)] * 2)
    async with searching(upstream, root) as client:
        answer = await client.post(WIRES[wire].path, json=request(wire, HI, stream=False))
        streamed = await client.post(WIRES[wire].path, json=request(wire, HI, stream=True))
    assert answer.status_code == 502
    assert TOOL in answer.json()["error"]["message"]
    assert TOOL in parse_events(streamed.content)[-1]["error"]["message"]
    assert len(upstream.exchanges) == 2 * (MAX_ROUNDS + 1)


async def test_a_round_that_is_too_long_is_made_shorter(upstream: ScriptedUpstream, root: Path) -> None:
    history, refused = reads(20), []

    async def answer(exchange: Exchange) -> None:
        said = json.dumps(exchange.json["messages"])
        pieces = [("text", "Found.")]
        if "call_0" not in said:
            pieces = [search("call_0")] if len(exchange.json["messages"]) == len(history) else [("text", "Well.")]
        elif not refused:
            refused.append(len(exchange.body))
            await exchange.whole(json.dumps(REFUSAL).encode(), 400)
            return
        await exchange.whole(json.dumps(whole(WireName.CHAT, pieces)).encode())

    upstream.answer = answer
    async with searching(upstream, root, mode="balanced") as client:
        for end in range(1, len(history) + 1, 2):
            body = await ask(client, WireName.CHAT, history[:end], stream=False)
    assert pieces_of(WireName.CHAT, body) == [("text", "Found.")]
    assert len(upstream.last.body) < refused[0]


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


@wires
@streams
async def test_rounds_are_metered_together(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    script(upstream, wire, [[search("call_0")], [("text", "hi")]])
    async with searching(upstream, root) as client:
        await ask(client, wire, HI, stream=stream)
        totals = (await client.get("/v1/stats")).json()["totals"]
    usage = totals["usage"]
    assert (totals["num_turns"], usage["cache_read"], usage["output_tokens"]) == (1, 40 + 41, 7 + 8)
    assert usage["input_tokens"] == (201 if wire is WireName.MESSAGES else 201 - 81)


@streams
async def test_rounds_before_one_that_is_refused_are_metered_all_the_same(
    upstream: ScriptedUpstream, root: Path, stream: bool
) -> None:
    script(upstream, WireName.MESSAGES, [[search("call_0")], [search("call_1")], 400])
    async with searching(upstream, root) as client:
        await client.post("/v1/messages", json=request(WireName.MESSAGES, HI, stream=stream))
        totals = (await client.get("/v1/stats")).json()["totals"]
    assert (totals["usage"]["input_tokens"], totals["usage"]["output_tokens"]) == (201, 15)


async def test_every_round_counts_against_its_keys_budget(upstream: ScriptedUpstream, root: Path) -> None:
    key, text = make_key("ann", tokens_per_day=250)  # one round takes 147 of the wire's tokens
    script(upstream, WireName.MESSAGES, [[search("call_0")], [("text", "hi")]])
    async with searching(upstream, root, keys=(key,)) as client:
        headers = {"x-sluice-key": text}
        asked = request(WireName.MESSAGES, HI, stream=True)
        first = await client.post("/v1/messages", json=asked, headers=headers)
        second = await client.post("/v1/messages", json=asked, headers=headers)
    assert (first.status_code, second.status_code) == (200, 429)


@wires
@pytest.mark.parametrize("searches", [False, True])
async def test_a_stream_that_is_whole_stays_so_when_its_connection_breaks(
    upstream: ScriptedUpstream, root: Path, wire: WireName, searches: bool
) -> None:
    rounds = [[search("call_0")], [("text", "Found.")]] if searches else [[("text", "Found.")]]

    async def answer(exchange: Exchange) -> None:
        number = len(upstream.exchanges) - 1
        await exchange.start("text/event-stream", 200, (b"content-length", b"99999"))
        await exchange.part(events(wire, rounds[number], number))

    upstream.answer = answer
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=True)
    assert pieces_of(wire, body) == [("text", "Found.")]


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
