"""The whole proxy before an upstream that speaks chat alone."""

from __future__ import annotations

import json

import anthropic
import pytest

from sluice.proxy.app import create_app
from sluice.proxy.settings import Settings
from sluice.proxy.wire import WireName
from tests.proxy.servers import Exchange, ScriptedUpstream, serving
from tests.proxy.translation.test_answers import Clients, through_anthropic, through_responses
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
