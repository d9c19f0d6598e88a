"""Everything under `/v1/` that is not understood: to the upstream and back, byte for byte, whatever the method.

Which upstream is told by the `model` of a JSON body, where it names one. Two things are not simply passed on: a
WebSocket upgrade, which this proxy does not speak, and the input of a batch, whose lines are compressed.
"""

from __future__ import annotations

import msgspec
from starlette.types import Receive, Scope, Send

from sluice.proxy.batches import compress_upload
from sluice.proxy.body import ClientGoneError, read_body
from sluice.proxy.errors import WebSocketError
from sluice.proxy.exchange import target_of
from sluice.proxy.headers import Header, find, to_upstream
from sluice.proxy.prepare import mode_of
from sluice.proxy.relay import Relayed, relay, unless_gone
from sluice.proxy.services import Services
from sluice.proxy.wire import Outgoing


class _Named(msgspec.Struct):
    model: str = ""


_decoder = msgspec.json.Decoder(_Named)


class Passthrough:
    """The route of what no other route serves, as an ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            WebSocketError: the client wants to speak WebSocket.
        """
        services: Services = scope["app"].state.services
        headers: list[Header] = scope["headers"]
        if (find(headers, b"upgrade") or "").lower() == "websocket":
            raise WebSocketError(scope["path"])
        settings = services.settings
        try:
            body = await read_body(receive, find(headers, b"content-length"), settings.max_body_bytes)
            content_type = find(headers, b"content-type") or ""
            if scope["method"] == "POST" and scope["path"] == "/v1/files":
                body = await compress_upload(body, content_type, mode_of(headers, settings.mode), settings.profile)
            model = _model_of(body) if "json" in content_type else ""
            await unless_gone(receive, self._forward(scope, send, services, model, body))
        except ClientGoneError:
            return

    async def _forward(self, scope: Scope, send: Send, services: Services, model: str, body: bytes) -> Relayed:
        headers = to_upstream(scope["headers"], identity=False)
        outgoing = Outgoing(scope["method"], target_of(scope), headers, body, model=model)
        answer = await services.upstreams.send(services.upstreams.resolve(model), outgoing)
        return await relay(answer, send, answer.sluice_headers)


def _model_of(body: bytes) -> str:
    try:
        return _decoder.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
