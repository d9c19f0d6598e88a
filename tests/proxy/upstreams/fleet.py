"""Two upstreams on loopback, and requests to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from sluice.proxy.headers import Header
from sluice.proxy.upstreams import (
    Answer,
    HttpLimits,
    Policy,
    RoutedAnswer,
    UpstreamMetrics,
    Upstreams,
    UpstreamSettings,
)
from sluice.proxy.wire import Outgoing, WireName
from tests.proxy.servers import Answer as Play
from tests.proxy.servers import Exchange, ScriptedUpstream, completion

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


CLIENTS: list[Header] = [(b"authorization", b"Bearer clients-own"), (b"cookie", b"a=1")]


def request(headers: Sequence[Header] = (), wire: WireName | None = WireName.CHAT, **more: object) -> Outgoing:
    body = json.dumps({**json.loads(BODY), **more}).encode() if more else BODY
    path = "/v1/messages" if wire is WireName.MESSAGES else "/v1/chat/completions"
    return Outgoing("POST", path, headers, body, wire, "m")


def settings(name: str, url: str, **more: object) -> UpstreamSettings:
    return UpstreamSettings.model_validate({"name": name, "origin": url, "credential": "client", **more})


class Fleet:
    """Two upstreams, the first with the second as its fallback, and what is counted of them."""

    def __init__(self, first: ScriptedUpstream, second: ScriptedUpstream) -> None:
        self.first, self.second = first, second
        self.registry = CollectorRegistry()
        self.stack = AsyncExitStack()

    def make(self, *upstreams: UpstreamSettings, read_timeout_s: float = 10.0, **policy: float) -> Upstreams:
        made = Upstreams(
            upstreams
            or (
                settings("a", self.first.url, fallback=("b",)),
                settings("b", self.second.url, models=(), credential="none"),
            ),
            limits=HttpLimits(read_timeout_s=read_timeout_s),
            policy=Policy(**policy),  # type: ignore[arg-type]
            metrics=UpstreamMetrics(self.registry),
            draw=lambda: 0.0,
        )
        self.stack.push_async_callback(made.aclose)
        return made

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def refusing(status: int, times: int, *headers: Header, body: bytes = b'{"error": {}}') -> Play:
    """Refuse so often, then answer."""
    left = times

    async def answer(exchange: Exchange) -> None:
        nonlocal left
        if left:
            left -= 1
            await exchange.whole(body, status, *headers)
        else:
            await exchange.whole(json.dumps(completion()).encode())

    return answer


async def read(answer: Answer) -> bytes:
    parts = []
    try:
        while part := await answer.read():
            parts.append(part)
    finally:
        answer.close()
    return b"".join(parts)


async def ask(upstreams: Upstreams, outgoing: Outgoing | None = None) -> RoutedAnswer:
    return await upstreams.send(upstreams.resolve("m"), outgoing or request(CLIENTS))
