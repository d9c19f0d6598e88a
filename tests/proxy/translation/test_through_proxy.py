"""The whole proxy before an upstream that speaks chat alone."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from sluice.proxy.app import create_app
from sluice.proxy.settings import Settings
from sluice.proxy.wire import WireName
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy, serving
from tests.proxy.translation.test_clients import Clients, through_anthropic, through_responses
from tests.proxy.translation.wires import BODIES, EVENTS, Said

SAID = Said("Let me look.", [("call_1", "read", {"path": "ä.py"})], "hmm")


async def say(exchange: Exchange) -> None:
    assert exchange.path == "/v1/chat/completions"
    assert exchange.header("accept-encoding") == b"identity"
    assert exchange.header("anthropic-version") is None
    assert exchange.header("authorization") == b"Bearer k"
    if exchange.json.get("stream"):
        await exchange.start("text/event-stream")
        await exchange.part(EVENTS[WireName.CHAT](SAID))
        await exchange.end()
    else:
        await exchange.whole(BODIES[WireName.CHAT](SAID))


async def refuse(exchange: Exchange) -> None:
    error = {"message": "This model's maximum context length is 10 tokens.", "type": "invalid_request_error"}
    await exchange.whole(json.dumps({"error": error}).encode(), 400)


async def test_official_clients_of_other_formats_are_served(upstream: ScriptedUpstream) -> None:
    upstream.answer = say
    settings = {"name": "only-chat", "origin": upstream.url, "wires": ["chat"], "credential": "client"}
    async with serving(create_app(Settings.model_validate({"upstreams": [settings]}))) as url:
        clients = Clients(url)
        try:
            for stream in (False, True):
                assert await through_anthropic(clients, stream=stream) == SAID
                assert await through_responses(clients, stream=stream) == SAID
            upstream.answer = refuse
            with pytest.raises(anthropic.BadRequestError, match="prompt is too long: "):
                await through_anthropic(clients, stream=False)
        finally:
            await clients.aclose()
    assert len(upstream.exchanges) >= 5


async def test_a_conversation_goes_back_to_anthropic_without_what_others_thought(upstream: ScriptedUpstream) -> None:
    """What came translated from one upstream carries a signature that is none to the provider it goes back to."""
    other = ScriptedUpstream()
    other.answer = say
    async with serving(other) as url:
        tables = (
            {"name": "ours", "origin": url, "wires": ["chat"], "models": ["small"], "credential": "client"},
            {"name": "claude", "preset": "anthropic", "origin": upstream.url, "models": ["big"]},
        )
        async with proxy(None, upstreams=tables) as client:
            headers = {"authorization": "Bearer k"}
            asked: Any = {"model": "small", "max_tokens": 9, "thinking": {"type": "adaptive"}}
            asked["messages"] = [{"role": "user", "content": "hi"}]
            said = (await client.post("/v1/messages", json=asked, headers=headers)).json()["content"]
            assert said[0]["signature"].startswith("sluice:")
            result = {"type": "tool_result", "tool_use_id": said[-1]["id"], "content": "text"}
            theirs = {"type": "thinking", "thinking": "so", "signature": "c2ln"}
            asked["messages"] += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": [result]},
                {"role": "assistant", "content": said[:1]},
                {"role": "user", "content": "go on"},
                {"role": "assistant", "content": [theirs, {"type": "text", "text": '"sluice: this is text"'}]},
                {"role": "user", "content": "and on"},
            ]
            raw = json.dumps({**asked, "model": "big"}).encode()
            await client.post("/v1/messages", content=raw, headers=headers)
            sent = upstream.last
            # The upstream that it came from gets it back.
            await client.post("/v1/messages", json=asked, headers=headers)
    messages = sent.json["messages"]
    assert messages[1]["content"] == said[1:]
    assert messages[3]["content"] == [{"type": "text", "text": "(empty)"}]
    assert b"sluice:reasoning" not in sent.body
    for index in (0, 2, 4, 5, 6):
        assert json.dumps(asked["messages"][index]).encode() in sent.body
    assert other.last.json["messages"][1]["reasoning_content"] == SAID.thinking
