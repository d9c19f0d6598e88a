"""The tool through a real proxy: an upstream that is scripted round by round, clients of each wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from sluice.compressor import MemoryStore
from sluice.proxy.errors import ConfigError
from sluice.proxy.load_settings import load_settings
from sluice.proxy.search_tool.answer import MAX_CALLS, MAX_ROUNDS
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import WIRES
from tests.proxy.search_tool.answers import (
    TOOL,
    Json,
    Piece,
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
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy
from tests.search.trees import write_tree

wires = pytest.mark.parametrize("wire", [WireName.MESSAGES, WireName.CHAT, WireName.RESPONSES])
streams = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
HI = [{"role": "user", "content": "why does the retry wait so long?"}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


@asynccontextmanager
async def searching(upstream: ScriptedUpstream, root: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    given = {"search_tool": "fast", "search_roots": (root,), "search_cache_dir": root.parent / "cache", **settings}
    async with proxy(upstream.url, **given) as client:
        yield client


def script(upstream: ScriptedUpstream, wire: WireName, rounds: Sequence[Sequence[Piece] | int]) -> None:
    """Have the upstream answer its next requests so, one after another; a number is an error's status."""
    coming = iter(enumerate(rounds))

    async def answer(exchange: Exchange) -> None:
        number, pieces = next(coming)
        if isinstance(pieces, int):
            await exchange.whole(b'{"type": "error", "error": {"message": "no"}}', pieces)
        elif exchange.json.get("stream"):
            await exchange.start("text/event-stream")
            data = events(wire, pieces, number)
            for start in range(0, len(data), 700):
                await exchange.part(data[start : start + 700])
            await exchange.end()
        else:
            await exchange.whole(json.dumps(whole(wire, pieces, number)).encode())

    upstream.answer = answer


async def ask(
    client: httpx.AsyncClient, wire: WireName, messages: Sequence[Json], *, stream: bool, **more: Any
) -> Json:
    """What the client sees of an answer."""
    body = {**request(wire, messages, stream=stream), **more}
    answer = await client.post(WIRES[wire].path, json=body)
    assert answer.status_code == 200, answer.text
    return seen(wire, parse_events(answer.content)) if stream else answer.json()


def forwarded(exchange: Exchange) -> list[Json]:
    body = exchange.json
    return list(body.get("messages") or body.get("input"))


def tools_of(exchange: Exchange) -> list[str]:
    return [tool.get("name") or tool["function"]["name"] for tool in exchange.json.get("tools") or []]


def found_in(messages: Sequence[Json], call_id: str) -> str:
    """The result of a call in a request."""
    for message in messages:
        blocks = message.get("content") if isinstance(message.get("content"), list) else []
        for part in (message, *blocks):
            if call_id in (part.get("tool_use_id"), part.get("tool_call_id")):
                return str(part["content"])
            if part.get("type") == "function_call_output" and part.get("call_id") == call_id:
                return str(part["output"])
    raise AssertionError(f"{call_id} has no result")


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
async def test_the_prefix_grows_byte_for_byte_over_turns_with_searches(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    turns = [
        [[("text", "One."), search("call_0")], [search("call_1", "backoff")], [("think", "x"), read("call_2")]],
        [[("text", "Two."), read("call_3"), search("call_4", "delay")]],
        [[("think", "y"), ("text", "Three."), search("call_5")], [("text", "Done.")]],
        [[("text", "Bye.")]],
    ]
    script(upstream, wire, [pieces for rounds in turns for pieces in rounds])
    messages = list(HI)
    async with searching(upstream, root) as client:
        for rounds in turns:
            body = await ask(client, wire, messages, stream=stream)
            clients = [piece for piece in rounds[-1] if piece[0] == "call" and piece[2] != TOOL]
            messages += given_back(wire, body)
            messages += results(wire, clients) if clients else [{"role": "user", "content": "and then?"}]
    sent = [forwarded(exchange) for exchange in upstream.exchanges]
    for before, after in pairwise(sent):
        assert after[: len(before)] == before, "what was forwarded once is forwarded again"
        assert len(after) > len(before)
    assert all(tools_of(exchange) == ["Read", TOOL] for exchange in upstream.exchanges)
    for call in ("call_0", "call_1", "call_4", "call_5"):
        assert ":" in found_in(sent[-1], call)
    raw = [exchange.body for exchange in upstream.exchanges]
    heads = {body[: body.index(b"why does the retry")] for body in raw}
    assert len(heads) == 1


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
@streams
async def test_a_request_that_the_upstream_refuses_with_the_tool_goes_without(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    script(upstream, wire, [400, [("text", "Fine.")]])
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=stream)
    assert pieces_of(wire, body) == [("text", "Fine.")]
    assert [tools_of(exchange) for exchange in upstream.exchanges] == [["Read", TOOL], ["Read"]]
    assert forwarded(upstream.last) == HI


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
async def test_a_client_with_a_tool_of_that_name_keeps_it(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    for name in (TOOL, f"mcp__sluice__{TOOL}"):
        script(upstream, wire, [[("call", "call_0", name, "{}")]])
        sent = request(wire, HI, stream=stream, tools=("Read", name))
        async with searching(upstream, root) as client:
            answer = await client.post(WIRES[wire].path, json=sent)
        assert name in answer.text
        assert tools_of(upstream.last) == ["Read", name]


@wires
@pytest.mark.parametrize(
    "change",
    [
        {"tools": None},
        {"tools": []},
        {"n": 2},
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
    ],
)
async def test_requests_that_it_does_not_fit_go_without(
    upstream: ScriptedUpstream, root: Path, wire: WireName, change: Json
) -> None:
    concerns = {"n": WireName.CHAT, "store": WireName.RESPONSES, "previous_response_id": WireName.RESPONSES}
    concerned = {**concerns, "context_management": WireName.MESSAGES}.get(next(iter(change)), wire)
    script(upstream, wire, [[("text", "hi")]])
    async with searching(upstream, root) as client:
        await client.post(WIRES[wire].path, json={**request(wire, HI, stream=False), **change})
    assert (TOOL in tools_of(upstream.last)) == (concerned is not wire)


@wires
async def test_mode_off_is_literal(upstream: ScriptedUpstream, root: Path, wire: WireName) -> None:
    script(upstream, wire, [[("text", "hi")]])
    sent = json.dumps(request(wire, HI, stream=False)).encode()
    async with searching(upstream, root) as client:
        await client.post(WIRES[wire].path, content=sent, headers={"x-sluice-mode": "off"})
    assert upstream.last.body == sent


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
async def test_it_is_decided_at_the_first_message(upstream: ScriptedUpstream, root: Path, wire: WireName) -> None:
    store = MemoryStore()

    async def turn(number: int, **settings: Any) -> list[str]:
        script(upstream, wire, [[("text", "hi")]])
        said = [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "go on"}]
        async with searching(upstream, root, app_options={"store": store}, **settings) as client:
            await ask(client, wire, [*HI, *said * number], stream=False)
        return tools_of(upstream.last)

    assert await turn(0, search_tool="off") == ["Read"]
    assert await turn(1) == ["Read"], "it began without"
    assert await turn(0) == ["Read", TOOL]
    assert await turn(1) == ["Read", TOOL]
    store = MemoryStore()
    assert await turn(2) == ["Read"], "what it began with is lost"


async def test_held_out_conversations_go_without(upstream: ScriptedUpstream, root: Path) -> None:
    script(upstream, WireName.CHAT, [[("text", "hi")]])
    async with searching(upstream, root, holdout=1.0) as client:
        await ask(client, WireName.CHAT, HI, stream=False)
    assert tools_of(upstream.last) == ["Read"]


@wires
@streams
async def test_a_lost_record_means_a_history_without_it(
    upstream: ScriptedUpstream, root: Path, wire: WireName, stream: bool
) -> None:
    rounds = [[("text", "Look."), search("call_0")], [("text", "Found.")], [("text", "Next.")]]
    script(upstream, wire, rounds)
    async with searching(upstream, root) as client:
        body = await ask(client, wire, HI, stream=stream)
    messages = [*HI, *given_back(wire, body), {"role": "user", "content": "go on"}]
    async with searching(upstream, root) as client:  # another store
        again = await ask(client, wire, messages, stream=stream)
    assert forwarded(upstream.last) == messages
    assert ("text", "Next.") in pieces_of(wire, again)


@wires
async def test_an_exchange_outlives_the_process(upstream: ScriptedUpstream, root: Path, wire: WireName) -> None:
    store = MemoryStore()
    script(upstream, wire, [[("text", "Look."), search("call_0")], [("text", "Found.")], [("text", "Next.")]])
    async with searching(upstream, root, app_options={"store": store}) as client:
        body = await ask(client, wire, HI, stream=True)
    messages = [*HI, *given_back(wire, body), {"role": "user", "content": "go on"}]
    async with searching(upstream, root, app_options={"store": store}) as client:
        await ask(client, wire, messages, stream=False)
    second, third = (forwarded(exchange) for exchange in upstream.exchanges[1:])
    assert third[: len(second)] == second


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
        stats = (await client.get("/v1/stats")).json()
    assert "215" in json.dumps(stats) or "201" in json.dumps(stats)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"search_tool": "fast"}, "search_roots"),
        ({"search_tool": "deep"}, "search_roots"),
        ({"search_tool": "yes"}, "search_tool"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(flags: Json, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_settings({"upstream": "http://127.0.0.1:1", **flags})


def test_deep_needs_a_model(tmp_path: Path) -> None:
    flags = {"upstream": "http://127.0.0.1:1", "search_tool": "deep", "search_roots": (tmp_path,)}
    with pytest.raises(ConfigError, match="search_deep_model"):
        load_settings(flags)
