"""Everything under `/v1/` that is not understood: to the upstream and back, byte for byte, whatever the method.

Which upstream is told by the `model` of a JSON body, where it names one, else by the path. Two things are not simply
passed on: a WebSocket upgrade, which this proxy does not speak, and batches, whose requests are compressed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from starlette.types import Receive, Scope, Send

from sluice.proxy.access import ProxyKey
from sluice.proxy.batches import compress_message_batch, compress_upload, model_of_batch, requests_of
from sluice.proxy.body import Body
from sluice.proxy.charging import Count, budgeted_key, charge, count_sent, name_and_count
from sluice.proxy.encoding import UnreadableBodyError, unpack_aside
from sluice.proxy.error_table import rendering_of
from sluice.proxy.errors import InvalidFieldError, WebSocketError
from sluice.proxy.headers import Header, find, to_upstream
from sluice.proxy.log import fields, logger
from sluice.proxy.meter import CLIENT_GONE_STATUS, UsageReader, reader_for
from sluice.proxy.meter.reader import readable
from sluice.proxy.model_name import model_of
from sluice.proxy.outgoing import target_of
from sluice.proxy.prepare import mode_of
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.relay import Relayed, relay, unless_gone
from sluice.proxy.services import Services
from sluice.proxy.upstreams import Target
from sluice.proxy.wire import Outgoing, WireName
from sluice.proxy.wire.base import Wire

FILES = "/v1/files"
MESSAGE_BATCHES = "/v1/messages/batches"
_FREE = frozenset(("/v1/moderations", "/v1/responses/input_tokens"))
"""They name a model and cost nothing."""
_MAX_PATH_CHARS = 200
"""Of a path in the log."""


class Passthrough:
    """The route of what no other route serves, as an ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            WebSocketError: the client wants to speak WebSocket.
            InvalidFieldError: the path leads out of `/v1/`, where a configured credential is not meant to go.
            UnknownModelError: no upstream serves the model.
        """
        services: Services = scope["app"].state.services
        headers: list[Header] = scope["headers"]
        if (find(headers, b"upgrade") or "").lower() == "websocket":
            raise WebSocketError(scope["path"])
        if ".." in scope["path"].replace("\\", "/").split("/"):
            raise InvalidFieldError(f"path {scope['path']!r} must not hold '..'", param="path")
        started_s = time.perf_counter()
        try:
            length = find(headers, b"content-length")
            body = await read_body(receive, length, services.settings.max_body_bytes)
            charges: list[Callable[[], Awaitable[None]]] = []
            try:
                relayed = await unless_gone(receive, self._forward(scope, send, services, body, charges))
            finally:  # here, where a client that has gone ends nothing any more
                for charge_key in charges:
                    await charge_key()
            status, num_bytes = relayed.status, relayed.num_bytes
        except ClientGoneError:
            status, num_bytes = CLIENT_GONE_STATUS, 0
        except Exception as error:
            services.metrics.requests.labels(rendering_of(error).status).inc()
            raise
        services.metrics.requests.labels(status).inc()
        total_ms = (time.perf_counter() - started_s) * 1000
        place = {"method": scope["method"], "path": scope["path"][:_MAX_PATH_CHARS]}
        logger.info(fields("passed_on", status=status, **place, total_ms=total_ms, answer_bytes=num_bytes))

    async def _forward(
        self,
        scope: Scope,
        send: Send,
        services: Services,
        body: bytes,
        charges: list[Callable[[], Awaitable[None]]],
    ) -> Relayed:
        """Pass a request on, and its answer; what is to be charged for that is put into `charges`."""
        path, upstreams = scope["path"], services.upstreams
        headers = to_upstream(scope["headers"], identity=False)
        content_type = find(scope["headers"], b"content-type") or ""
        model = model_of(body) if "json" in content_type else ""
        if scope["method"] == "POST" and path in (FILES, MESSAGE_BATCHES):
            # Unpacked bodies are read, whatever they were packed with: those of large batches often are.
            body, headers = await _unpacked(body, headers, services.settings.max_body_bytes)
            mode = mode_of(scope["headers"], services.settings.mode)
            if path == FILES:
                target = upstreams.resolve("")
                body = await compress_upload(body, content_type, mode, target.profile)
            else:
                model = model_of_batch(body)
                target = upstreams.resolve(model) if model else upstreams.speaking(WireName.MESSAGES)
                body = await compress_message_batch(body, mode, target.profile)
        elif model:
            target = upstreams.resolve(model)
        else:
            target = upstreams.speaking(WireName.MESSAGES if path.startswith("/v1/messages/") else None)
        headers = readable(headers) if model else headers
        answer = await upstreams.send(target, Outgoing(scope["method"], target_of(scope), headers, body, model=model))
        # Embeddings, say: what they report of their usage stands where that of a chat completion does.
        reader, key = reader_for(WireName.CHAT, answer.headers), budgeted_key(scope)
        if key is not None:
            served_by = upstreams.target(answer.upstream)
            charges.append(partial(_charge, key, services, path, body, headers, answer.status, reader, served_by))
        return await relay(answer, send, answer.sluice_headers, tap=reader.feed if key is not None else None)


async def _charge(
    key: ProxyKey,
    services: Services,
    path: str,
    body: bytes,
    headers: Sequence[Header],
    status: int,
    reader: UsageReader,
    target: Target,
) -> None:
    """Charge an answer to a key with budgets, where its request names a model or may do so: all else is no work."""
    model: str | None
    count: Count
    content_type = find(headers, b"content-type") or ""
    if status >= 400 or path in _FREE:
        return
    if path in (FILES, MESSAGE_BATCHES):
        requests = await asyncio.to_thread(requests_of, body, content_type)
        model = next((request.model for _, request in requests), "")
        count = partial(_count_all, services, requests)
    elif "json" in content_type:
        model, count = await name_and_count(services, body, headers)
    else:
        return
    if model != "":
        await charge(services, key, usage=reader.usage(), count=count, model=model or "", target=target)


async def _count_all(services: Services, requests: Sequence[tuple[Wire, Body]]) -> int:
    return sum([await count_sent(services.counter, wire, request, request.messages) for wire, request in requests])


async def _unpacked(body: bytes, headers: list[Header], max_body_bytes: int) -> tuple[bytes, list[Header]]:
    """A body and its headers, unpacked where it can be."""
    encoding = find(headers, b"content-encoding")
    if encoding is None:
        return body, headers
    try:
        plain = await unpack_aside(body, encoding, max_body_bytes)
    except UnreadableBodyError:
        return body, headers
    return plain, [(name, value) for name, value in headers if name != b"content-encoding"]
