"""`POST /v1/messages/count_tokens`: the tokens of what would be forwarded.

The body is compressed as that of a message would be, nothing is frozen, and the upstream counts; where it cannot, its
tokens are counted here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from sluice.compressor import ANTHROPIC_MESSAGES
from sluice.proxy.body import Body
from sluice.proxy.headers import Header, find
from sluice.proxy.outgoing import outgoing_of
from sluice.proxy.prepare import mode_of, prepare
from sluice.proxy.prepared import Prepared
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.relay import relay, unless_gone
from sluice.proxy.services import Services
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import MESSAGES

_LACKS_ROUTE = (404, 405, 501)


class CountTokens:
    """The route, as an ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        services: Services = scope["app"].state.services
        headers: list[Header] = scope["headers"]
        try:
            raw = await read_body(receive, find(headers, b"content-length"), services.settings.max_body_bytes)
            mode = mode_of(headers, services.settings.mode)
            prepared = await prepare(raw, headers, MESSAGES, mode, services, dry=True)
            await unless_gone(receive, self._serve(scope, send, services, prepared))
        except ClientGoneError:
            return

    async def _serve(self, scope: Scope, send: Send, services: Services, prepared: Prepared) -> None:
        target, parsed = prepared.target, prepared.parsed
        ours = [(b"x-sluice-mode", prepared.mode.encode())]
        if prepared.bypass is not None:
            ours.append((b"x-sluice-bypass", prepared.bypass.encode()))
        if target is None or parsed is None or WireName.MESSAGES in target.wires:
            answer = await services.upstreams.send(
                target or services.upstreams.resolve(""), outgoing_of(scope, prepared, MESSAGES)
            )
            if parsed is None or answer.status not in _LACKS_ROUTE:
                await relay(answer, send, [*ours, *answer.sluice_headers])
                return
            answer.close()
        body = json.dumps({"input_tokens": await _count(services, parsed, prepared.messages_out)}).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *ours]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


async def _count(services: Services, parsed: Body, messages: Sequence[bytes]) -> int:
    """Count a request's tokens: its messages, its system prompt, its tools."""
    around = [field for name in MESSAGES.context_fields if (field := parsed.field(name)) not in (b"", b"null")]
    counts = await services.counter.count(parsed.model, ANTHROPIC_MESSAGES, messages, around)
    return sum(counts)
