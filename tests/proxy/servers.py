"""Real servers on loopback: the proxy, and an upstream that does what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

from sluice.proxy.app import create_app
from sluice.proxy.settings import Settings

Json = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
Answer = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request that the upstream got, and the way to answer it."""

    def __init__(self, scope: Any, body: bytes, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.raw_target: bytes = scope["raw_path"] + (b"?" + self.query if self.query else b"")
        """Path and query as they were sent."""
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.body = body
        self.hung_up = asyncio.Event()
        """Set when the proxy has closed the connection before the answer was whole."""
        self._send = send

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> bytes | None:
        return dict(self.headers).get(name.encode())

    async def start(self, content_type: str, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", content_type.encode()), *headers],
            }
        )

    async def part(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(self, data: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        length = (b"content-length", b"%d" % len(data))
        await self.start("application/json", status, length, *headers)
        await self._send({"type": "http.response.body", "body": data})


def completion(text: str = "hello") -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


def chunk(text: str) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def answer_plainly(exchange: Exchange) -> None:
    if exchange.path == "/v1/models":
        await exchange.whole(b'{"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]}')
    elif exchange.body and b'"stream": true' in exchange.body.replace(b'":true', b'": true'):
        await exchange.start("text/event-stream")
        for word in ("hel", "lo"):
            await exchange.part(chunk(word))
        await exchange.part(DONE)
        await exchange.end()
    else:
        await exchange.whole(json.dumps(completion()).encode())


class ScriptedUpstream:
    """An ASGI application that records each request and lets `answer` answer it."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Answer = answer_plainly
        self.exchanges: list[Exchange] = []
        self.arrived = asyncio.Event()

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        exchange = Exchange(scope, body, send)
        self.exchanges.append(exchange)
        self.arrived.set()
        answering = asyncio.ensure_future(self.answer(exchange))
        listening = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((answering, listening), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await asyncio.sleep(0)
            if answering.done():
                answering.result()
            else:
                exchange.hung_up.set()
        finally:
            for task in (answering, listening):
                task.cancel()
            await asyncio.gather(answering, listening, return_exceptions=True)


@asynccontextmanager
async def serving(app: Any, *, port: int = 0) -> AsyncIterator[str]:
    """Serve an application on a port, a free one if it is 0; its URL."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listener:
        task = asyncio.create_task(server._serve([listener]))
        while not server.started:
            assert not task.done(), "the server did not start"
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def proxy(
    upstream_url: str | None, *, app_options: Json | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the proxy before an upstream; a client on it. Limits are generous: tests run on slow machines."""
    generous = {"tokens_wait_s": 30.0, "compress_timeout_s": 30.0, "redis_timeout_s": 5.0}
    app = create_app(Settings(upstream=upstream_url, **{**generous, **settings}), **(app_options or {}))
    async with (
        serving(app) as url,
        httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(30.0), trust_env=False) as client,
    ):
        yield client


def reading_twice(num_lines: int = 40) -> list[Json]:
    """A conversation whose last result repeats an earlier one."""
    text = "\n".join(f"    value_{number} = compute({number}, scale={number * 7})" for number in range(num_lines))
    messages: list[Json] = [{"role": "user", "content": "fix it"}]
    for call_id in ("call_1", "call_2"):
        function = {"name": "Read", "arguments": '{"file_path": "a.py"}'}
        messages += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call_id, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call_id, "content": text},
        ]
    return messages
