"""Which conversations have the tool, and what is remembered of its calls, through a real proxy."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sluice.compressor import MemoryStore
from sluice.proxy.errors import ConfigError
from sluice.proxy.load_settings import load_settings
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import WIRES
from tests.proxy.search_tool.answers import (
    TOOL,
    Json,
    given_back,
    pieces_of,
    read,
    request,
    results,
    search,
)
from tests.proxy.search_tool.rounds import HI, ask, forwarded, found_in, script, searching, streams, tools_of, wires
from tests.proxy.servers import ScriptedUpstream


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
