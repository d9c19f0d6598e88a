"""An upstream on loopback that keeps what it is sent: what a proxy forwards is judged by this and nothing else.

Answers as an OpenAI server does, plain and streamed, with a small completion of its own; or, put before a real
server, hands its answers on as they come. Knows no proxy and no conversation.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType

import aiohttp
import msgspec
from aiohttp import web

from sluice.eval.errors import ReplayError
from sluice.eval.message import CHARS_PER_TOKEN, encode

MAX_BODY_BYTES = 256 * 2**20
MODEL = "recorder"
ANSWER = "Noted."
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "trailer", "upgrade"}


class Recorder:
    """Listens while it is entered.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        relay_to: origin of the server that answers; None answers here.
    """

    def __init__(self, *, port: int = 0, relay_to: str | None = None) -> None:
        self._port = port
        self._relay_to = relay_to
        self._bodies: list[bytes] = []
        self._is_recording = True
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Its origin, without `/v1`."""
        return f"http://127.0.0.1:{self._port}"

    def take(self) -> list[bytes]:
        """The bodies of the chat requests since the last call, in order."""
        taken, self._bodies = self._bodies, []
        return taken

    def stop_recording(self) -> None:
        """Go on answering, but keep nothing."""
        self._is_recording = False
        self._bodies.clear()

    async def __aenter__(self) -> Recorder:
        """Listen.

        Raises:
            ReplayError: the port is taken.
        """
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._chat)
        if self._relay_to is None:
            app.router.add_get("/v1/models", _models)
        else:
            app.router.add_route("*", "/{path:.*}", self._relay)
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False, trust_env=False
            )
        # A client that hangs up must reach the server behind: its handler is cancelled, and with it the request.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        try:
            await site.start()
        except OSError as error:
            await self._close()
            raise ReplayError(f"the recorder cannot listen on 127.0.0.1:{self._port}: {error.strerror}") from error
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._session:
            await self._session.close()
        if self._runner:
            await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self._is_recording:
            self._bodies.append(body)
        return await (self._relay(request) if self._relay_to else _answer(request, body))

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with self._session.request(
            request.method, f"{self._relay_to}{request.rel_url}", data=await request.read(), headers=headers
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def forwarded_messages(body: bytes) -> list[bytes]:
    """The JSON of each message in a recorded body, as it was sent.

    Raises:
        ReplayError: it is no chat request.
    """
    try:
        return [bytes(message) for message in _decoder.decode(body).messages]
    except msgspec.MsgspecError as error:
        try:  # msgspec refuses halves of surrogate pairs, which agents send where a tool cut an emoji in two
            return [encode(message) for message in json.loads(body)["messages"]]
        except (ValueError, KeyError, TypeError):
            raise ReplayError(f"the proxy forwarded what is no chat request: {error}") from None


class _Body(msgspec.Struct):
    messages: list[msgspec.Raw]


class _Request(msgspec.Struct):
    stream: bool | None = None
    stream_options: dict[str, object] | None = None


_decoder = msgspec.json.Decoder(_Body)


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "sluice"}]})


async def _answer(request: web.Request, body: bytes) -> web.StreamResponse:
    try:
        wanted = msgspec.json.decode(body, type=_Request)
    except msgspec.MsgspecError:
        wanted = _Request(stream=json.loads(body).get("stream"))
    usage = {"prompt_tokens": len(body) // CHARS_PER_TOKEN, "completion_tokens": 2}
    usage["total_tokens"] = sum(usage.values())
    head = {"id": "chatcmpl-recorded", "created": 0, "model": MODEL}
    if not wanted.stream:
        message = {"role": "assistant", "content": ANSWER}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    head["object"] = "chat.completion.chunk"
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    await response.prepare(request)
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ANSWER}, None), ({}, "stop")]
    for delta, reason in deltas:
        await _event(response, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
        await asyncio.sleep(0)
    if (wanted.stream_options or {}).get("include_usage"):
        await _event(response, {**head, "choices": [], "usage": usage})
    await response.write(b"data: [DONE]\n\n")
    return response


async def _event(response: web.StreamResponse, data: dict[str, object]) -> None:
    await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")
