from __future__ import annotations

import asyncio
import json

import aiohttp
import openai
import pytest

from sluice.eval.errors import ReplayError
from sluice.eval.message import encode
from sluice.eval.recorder import ANSWER, MODEL, Recorder, forwarded_messages
from tests.eval.builders import tool, user


def client_of(recorder: Recorder) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{recorder.url}/v1", api_key="k", max_retries=0)


async def test_answers_the_real_client_and_keeps_what_it_sent() -> None:
    async with Recorder() as recorder, client_of(recorder) as client:
        assert [model.id async for model in await client.models.list()] == [MODEL]
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "plain"}])
        assert answer.choices[0].message.content == ANSWER
        assert answer.usage is not None
        stream = await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "streamed"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
        assert chunks[-1].usage is not None
        bodies = recorder.take()
        assert [json.loads(body)["messages"][0]["content"] for body in bodies] == ["plain", "streamed"]
        assert recorder.take() == []


async def test_hands_a_real_servers_answers_on() -> None:
    async with Recorder() as server, Recorder(relay_to=server.url) as recorder, client_of(recorder) as client:
        assert [model.id async for model in await client.models.list()] == [MODEL]
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
        assert answer.choices[0].message.content == ANSWER
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "b"}], stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER
        assert recorder.take() == server.take() != []
        recorder.stop_recording()
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "c"}])
        assert recorder.take() == []
        assert len(server.take()) == 1


async def test_a_client_that_hangs_up_reaches_the_server_behind() -> None:
    gone = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Recorder(relay_to=origin) as recorder, aiohttp.ClientSession() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await session.post(f"{recorder.url}/v1/chat/completions", json={"messages": []})
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_taken_port_is_named() -> None:
    async with Recorder() as recorder:
        port = int(recorder.url.rpartition(":")[2])
        with pytest.raises(ReplayError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with Recorder(port=port):
                pass


def test_messages_are_found_as_they_were_sent() -> None:
    messages = [b'{"role": "user",  "content": "spaces stay"}', encode(tool("cut \ud83d")), encode(user("a"))]
    assert forwarded_messages(b'{"messages": [' + b",".join(messages[::2]) + b"]}") == messages[::2]
    found = forwarded_messages(b'{"messages": [' + b",".join(messages) + b"]}")
    assert [json.loads(raw) for raw in found] == [json.loads(raw) for raw in messages]
    with pytest.raises(ReplayError, match="no chat request"):
        forwarded_messages(b"{}")
