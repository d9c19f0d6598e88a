from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.proxy.servers import ScriptedUpstream, proxy, reading_twice
from tests.proxy.test_wires import as_items, as_messages

TEXT = "\n".join(f"    value_{number} = compute({number}, scale={number * 7})" for number in range(120))


@pytest_asyncio.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[httpx.AsyncClient]:
    async with proxy(upstream.url) as client:
        yield client
    assert not upstream.exchanges


async def test_a_text(client: httpx.AsyncClient) -> None:
    asked = {"input": TEXT, "query": "what is value_7?", "compression_ratio": 0.4, "model": "gpt-4o"}
    got = (await client.post("/v1/compact", json=asked)).json()
    assert (got["object"], got["model"]) == ("compact", "gpt-4o")
    lines = TEXT.split("\n")
    kept = [lines[number - 1] for span in got["kept_line_ranges"] for number in range(span["start"], span["end"] + 1)]
    assert [line for line in got["output"].split("\n") if not line.startswith("[sluice")] == kept
    assert got["compacted_line_ranges"]
    usage = got["usage"]
    assert 0 < usage["output_tokens"] < 0.5 * usage["input_tokens"]
    assert usage["compression_ratio"] == pytest.approx(usage["output_tokens"] / usage["input_tokens"], abs=1e-3)


@pytest.mark.parametrize(
    "messages", [reading_twice(), as_messages(reading_twice())["messages"], as_items(reading_twice())["input"]]
)
@pytest.mark.parametrize("field", ["messages", "input"])
async def test_messages_of_every_wire(client: httpx.AsyncClient, messages: list[Any], field: str) -> None:
    asked = {field: messages, "preserve_recent": 0}
    got = (await client.post("/v1/compact", json=asked, headers={"x-sluice-mode": "safe"})).json()["messages"]
    ours = ("compacted_line_ranges", "kept_line_ranges")
    assert [{key: message[key] for key in message if key not in ours} for message in got[:4]] == messages[:4]
    assert [message["compacted_line_ranges"] for message in got[:4]] == [[]] * 4
    assert got[2]["kept_line_ranges"] == [{"start": 1, "end": 40}]
    assert got[4]["compacted_line_ranges"] == [{"start": 1, "end": 40}]
    assert "40 lines as in message 3" in str(got[4])


async def test_off_gives_everything_back(client: httpx.AsyncClient) -> None:
    asked = {"messages": reading_twice(), "preserve_recent": 0}
    got = (await client.post("/v1/compact", json=asked, headers={"x-sluice-mode": "off"})).json()["messages"]
    assert [message["content"] for message in got] == [message["content"] for message in reading_twice()]
    text = (await client.post("/v1/compact", json={"input": TEXT}, headers={"x-sluice-mode": "off"})).json()
    assert text["output"] == TEXT


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "either 'input' or 'messages'"),
        ({"input": "x", "messages": []}, "either 'input' or 'messages'"),
        ({"input": 7}, "input"),
        ({"input": "x", "compression_ratio": 0}, "compression_ratio"),
        ({"input": "x", "preserve_recent": -1}, "preserve_recent"),
        ({"messages": [7]}, "messages"),
    ],
)
async def test_what_is_wrong_is_named(client: httpx.AsyncClient, body: dict[str, Any], says: str) -> None:
    got = await client.post("/v1/compact", json=body)
    assert got.status_code == 400
    assert says in got.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post("/v1/compact", content=body)).json()["error"]["code"] == "invalid_json"


async def test_a_shortened_message_keeps_its_cache_control(client: httpx.AsyncClient) -> None:
    messages = as_messages(reading_twice())["messages"]
    messages[4]["content"][0]["cache_control"] = {"type": "ephemeral"}
    asked = {"messages": messages, "preserve_recent": 0}
    got = (await client.post("/v1/compact", json=asked, headers={"x-sluice-mode": "safe"})).json()["messages"]
    assert "40 lines as in message 3" in str(got[4])
    assert got[4]["content"][0]["cache_control"] == {"type": "ephemeral"}
